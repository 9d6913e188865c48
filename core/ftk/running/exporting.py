"""What a stage leaves on disk: its model as one ordinary folder, its card, and the states that go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftk.disk.pieces import is_divided
from ftk.files import write_text
from ftk.parts import Head, ModelSource, State
from ftk.processes.sharding import save_model
from ftk.recipe.specs import Recipe
from ftk.report import WEIGHTS
from ftk.report.weights import weight_table
from ftk.running.folder import RunFolder
from ftk.running.reporting import write_card
from ftk.running.stage import Stage


def export_stage(
    stage: Stage,
    folder: RunFolder,
    members: Mapping[Head, str],
    source: ModelSource,
    states: Mapping[str, State],
    report: dict[str, Any],
    recipe: Recipe,
) -> Any:
    """End a stage's adaptation and turn what it made into the finished stage; every process calls this.

    Args:
        stage: trained, its mitigations finished.
        folder: the run's.
        members: the heads that it trains, the live one first, each by the name of its task in the stage.
        source: of the model; saves it.
        states: that go on into the next stage.
        report: of the run so far, the stage's facts last.
        recipe: that the card tells of.

    Returns:
        The plain model.
    """
    number, name, heads = stage.ctx.stage, stage.spec.name, stage.ctx.heads
    assert heads is not None
    target = folder.aside_path(number, name) / "model"
    is_main = stage.accelerator.is_main_process
    told, drifts = None, "weight-drift" in stage.spec.adaptation.provides()
    weights = weight_table(stage.ctx, stage.mitigations.weigh(stage.ctx)) if drifts else None
    if is_main:
        folder.stage_aside(number, name)
        if weights is not None:
            write_text(target.parent / WEIGHTS, weights)
        target.mkdir()
        told = stage.adaptation.export(target)
    model = stage.adaptation.merge()
    heads = heads.following(model)
    places = model_places(target, members)
    others = ", ".join(f"`{place.relative_to(target)}`" for place in places.values() if place != target)
    beside = others and f"Models of the tasks with other heads, over the same body, each complete: {others}."
    new = ", ".join(stage.ctx.unknown_labels())
    unknown = new and f"Outputs for labels that no stage has taught yet, and that mean nothing: {new}."
    told = "\n\n".join(text for text in (told, beside, unknown) if text) or None
    for head, place in places.items():
        if is_main:
            place.mkdir(exist_ok=True, parents=True)
        save_model(heads.models[head], heads.processor, source, place, keep=is_main)
        if is_main:
            write_card(place, report, recipe, head.kind, source.how_to_load(), told if place == target else None)
    if is_main or is_divided(states):
        folder.finish_stage(number, name, dict(states), facts=report["stages"][-1], told=told)
    if is_main:
        folder.write_json("report.json", report)
    stage.accelerator.wait_for_everyone()
    model.name_or_path = str(folder.model_path(number, name))  # what the next stage's adapter stands on
    return model


def model_places(folder: Path, members: Mapping[Head, str]) -> dict[Head, Path]:
    """Where a stage's models are: the live head's in its folder ``model``, each other one's in a folder of it."""
    live, *others = members
    return {live: folder, **{head: folder / "members" / members[head] for head in others}}
