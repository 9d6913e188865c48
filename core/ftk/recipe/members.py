"""The tasks that a stage teaches: one, or one for each objective of which its own is made, with rows for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ftk.errors import Problem, did_you_mean
from ftk.recipe.measured import OWN_ROWS
from ftk.recipe.naming import name_of
from ftk.recipe.specs import DataSpec, PartSpec, Recipe, StageSpec

Sets = Mapping[str, PartSpec | None]
"""Data sets by their key in ``[data]``; None where the recipe is wrong about one."""


@dataclass(frozen=True)
class TaskSpec:
    """One task of a run: a column of its scores.

    Attributes:
        name: the stage's, or where the stage teaches several ``stage/member``.
        objective: reads its rows.
        data: these.
        evaluators: those that can measure it.
        whole: of one of several, the data sets of all of them together.
    """

    name: str
    objective: PartSpec
    data: DataSpec
    evaluators: tuple[PartSpec, ...]
    whole: DataSpec | None = None


def tasks_of(stage: StageSpec) -> tuple[TaskSpec, ...]:
    """The tasks of a stage that is right, in the order of the recipe."""
    members = stage.objective.parts
    if not members:
        return (TaskSpec(stage.name, stage.objective, stage.data, stage.evaluators),)
    found: list[TaskSpec] = []
    for member in members:
        data = _data_of(stage.data, member.name)
        tested = data.test is not None or "test-data" in data.train.provides()
        once = [spec for task in found for spec in task.evaluators if OWN_ROWS in spec.provides()]
        fitting = tuple(
            spec
            for spec in stage.evaluators
            if _fits(spec, member, members) and (spec not in once if OWN_ROWS in spec.provides() else tested)
        )
        found.append(TaskSpec(name_of(stage.name, member.name), member, data, fitting, stage.data))
    return tuple(found)


def task_specs(recipe: Recipe) -> list[TaskSpec]:
    """All tasks of a recipe in the order of the score matrix, the retained one first."""
    found = [task for stage in recipe.stages for task in tasks_of(stage)]
    if (retained := recipe.retained_data()) is not None:
        found.insert(0, TaskSpec("retain", recipe.retain_objective, retained, recipe.retain_evaluators))
    return found


def sets_by_task(stage: StageSpec, data: Sets) -> dict[str, Sets]:
    """The data sets of each task of a stage by its name, of which any may be wrong."""
    if not stage.objective.parts:
        return {stage.name: data}
    return {
        name_of(stage.name, member.name): {
            key: part
            for key, spec in data.items()
            if key not in ("retain", "retain_validation", "retain_test")
            and (part := None if spec is None else _part(spec, member.name)) is not None
        }
        for member in stage.objective.parts
    }


def measurable(spec: PartSpec, objective: PartSpec) -> frozenset[str]:
    """What an evaluator finds in the objective of a stage that teaches several tasks: that of one which it fits."""
    fitting = [member for member in objective.parts if _fits(spec, member, objective.parts)]
    return fitting[0].provides() if fitting else frozenset()


def check_members(stage: StageSpec) -> tuple[list[Problem], list[str]]:
    """What is wrong with a stage that teaches several tasks, and which of them nothing will measure."""
    members = stage.objective.parts
    if not members:
        return [], []
    names = [member.name for member in members]
    problems = [
        Problem(member.path, "is itself made of several tasks", "name all of them in one table")
        for member in members
        if member.parts
    ]
    roles = {role: getattr(stage.data, role) for role in ("train", "validation", "test")}
    for role, spec in {**roles, **{f"probes.{name}": spec for name, spec in stage.data.probes.items()}}.items():
        if spec is not None:
            problems += _check_parts(role, spec, names, stage.objective.name)
    if problems or not stage.evaluators:
        return problems, []
    bare = [task.name for task in tasks_of(stage) if not task.evaluators]
    return [], [f"task `{name}` is not measured: no evaluator fits it, or it has no test rows" for name in bare]


def _check_parts(role: str, spec: PartSpec, names: Sequence[str], objective: str) -> list[Problem]:
    """Whether a data set has a part for each task, or where it is not trained on, for some of them."""
    if not spec.parts:
        reason = f"`{objective}` learns several tasks, and rows must say of which they are"
        hint = f'use = "mixture" with a part for each: {", ".join(names)}'
        return [Problem(spec.path, reason, hint)]
    given = [part.name for part in spec.parts]
    problems = [
        Problem(f"{spec.path}.parts.{name}", f"`{objective}` has no task `{name}`", did_you_mean(name, names))
        for name in given
        if name not in names
    ]
    missing = [name for name in names if name not in given] if role == "train" else []
    if missing:
        reason = f"has no rows for {', '.join(f'`{name}`' for name in missing)}"
        problems.append(Problem(f"{spec.path}.parts", reason, "name a part for every task"))
    return problems


def _fits(spec: PartSpec, member: PartSpec, members: Sequence[PartSpec]) -> bool:
    """Whether an evaluator can measure a member: what it needs of objectives, and one of them gives, that one gives."""
    asked = set(spec.needs()) & frozenset().union(*(each.provides() for each in members))
    return asked <= member.provides()


def _data_of(data: DataSpec, name: str) -> DataSpec:
    train = _part(data.train, name)
    assert train is not None
    probes = {key: part for key, spec in data.probes.items() if (part := _part(spec, name)) is not None}
    validation, test = (_part(spec, name) if spec is not None else None for spec in (data.validation, data.test))
    return DataSpec(train, validation, test, probes, data.overlap)


def _part(spec: PartSpec, name: str) -> PartSpec | None:
    """The part of this name, which goes through the transforms of the whole behind its own; None: there is none."""
    for part in spec.parts:
        if part.name == name:
            return replace(part, transforms=(*part.transforms, *spec.transforms))
    return None
