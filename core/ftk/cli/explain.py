"""The stations of a run with the parts that act at each: ``ftk run --explain``."""

from __future__ import annotations

from rich.tree import Tree

from ftk.parts import Adaptation, Mitigation, Objective
from ftk.plugin.registry import OWN_DISTRIBUTION
from ftk.recipe.building import build
from ftk.recipe.specs import PartSpec, Recipe, StageSpec
from ftk.running.composition import stations_of


def explain(recipe: Recipe) -> Tree:
    """A tree of what a run of ``recipe`` does, in order, naming the part behind each station."""
    tree = Tree(f"[bold]{recipe.name}[/]  seed {recipe.seed}")
    start = tree.add("start")
    start.add(f"model: {_named(recipe.model)}")
    if recipe.retain is not None:
        start.add(f"retain: {_named(recipe.retain)}, measured as task `retain`")
    start.add("measure every task")
    for number, stage in enumerate(recipe.stages, start=1):
        _explain_stage(tree.add(f"[bold]stage {number}: {stage.name}[/]"), stage)
    tree.add("report.json, model/")
    return tree


def _explain_stage(tree: Tree, stage: StageSpec) -> None:
    acting: dict[str, list[str]] = {}
    own = type(build(stage.adaptation, Adaptation))
    for station in ("before_step", "edit_gradients", "after_step"):
        if getattr(own, station) is not getattr(Adaptation, station):
            acting[station] = [_named(stage.adaptation)]
    for spec in stage.mitigations:
        for station in stations_of(build(spec, Mitigation)):
            acting.setdefault(station, []).append(_named(spec))
    tree.add(f"data: {_with_steps(stage.data.train)} through {_with_steps(stage.objective)}")
    tree.add(f"attach: {_named(stage.adaptation)}")
    for station, told in (("remember", "remember what came before"), ("begin", "begin")):
        if station in acting:
            tree.add(f"{told}: {', '.join(acting[station])}")
    if "sources" in acting:
        tree.add(f"mix in rows: {', '.join(acting['sources'])}")
    step = tree.add(f"each step, {stage.training.batch}")
    if "before_step" in acting:
        step.add(f"before the step: {', '.join(acting['before_step'])}")
    for objective in stage.objective.parts or (stage.objective,):
        if type(build(objective, Objective)).vary is not Objective.vary:
            step.add(f"draw rows anew: {_named(objective)}")
    step.add(f"loss: {', '.join([_named(stage.objective), *acting.get('penalty', [])])}")
    if "read_gradients" in acting:
        step.add(f"read the loss's gradients: {', '.join(acting['read_gradients'])}")
    if "edit_gradients" in acting:
        step.add(f"edit gradients: {' then '.join(acting['edit_gradients'])}")
    clip = stage.training.max_grad_norm
    clipped = f"clip to norm {clip:g}, " if clip else "unclipped, "
    step.add(f"{clipped}{stage.training.optimizer.use} at {stage.training.learning_rate:g}")
    if "after_step" in acting:
        step.add(f"after the step: {', '.join(acting['after_step'])}")
    watched = stage.training
    if watched.evaluate_every:
        seen = tree.add(f"every {watched.evaluate_every} steps: measure every task so far on validation data")
        if watched.early_stopping is not None:
            seen.add(f"end after {watched.early_stopping.patience} without an improvement")
        if watched.keep == "best":
            seen.add("keep the best weights")
    if "finish" in acting:
        tree.add(f"finish: {', '.join(acting['finish'])}")
    measured = ", ".join(_named(spec) for spec in stage.evaluators) or "nothing: there are no evaluators"
    tree.add(f"measure: {measured}")


def _with_steps(spec: PartSpec) -> str:
    """A data set with what it is made of, and with its transforms in order."""
    inside = f" of {', '.join(map(_with_steps, spec.parts))}" if spec.parts else ""
    return " > ".join([_named(spec) + inside, *map(_named, spec.transforms)])


def _named(spec: PartSpec) -> str:
    told = spec.name if spec.name == spec.use else f"{spec.name} ({spec.use})"
    return f"[cyan]{told}[/]" if spec.distribution == OWN_DISTRIBUTION else f"[cyan]{told}[/] from {spec.distribution}"
