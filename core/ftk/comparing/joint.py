"""The upper bound of a recipe: the training rows of all its tasks together in one stage, from the same start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk.errors import RecipeError
from ftk.events import Events
from ftk.parts import ModelSource
from ftk.plugin.registry import Registry
from ftk.processes.meeting import make_accelerator
from ftk.recipe.building import build
from ftk.recipe.members import TaskSpec, task_specs
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.specs import PartSpec, Recipe
from ftk.recipe.training import DEFAULT_EPOCHS
from ftk.recipe.watching import Watching
from ftk.running.pipeline import Run

STAGE = "joint"
HEAD = "head"
"""The option of an objective with labels that names its head."""


class CannotJoin(Exception):
    """A recipe's tasks cannot be learned at once; says why."""


def joint_recipe(recipe: Recipe, registry: Registry) -> Recipe:
    """A recipe of one stage of `multitask` with a task for each task of ``recipe``, the retained one too.

    Adaptation and training are those of the first stage; it takes as many steps as all stages together, or as many
    epochs as the longest. There are no mitigations, and nothing is measured or chosen while it trains.

    Raises:
        CannotJoin: there is one task, or they cannot be put together.
        UserError: rows cannot be read.
    """
    tasks = task_specs(recipe)
    if len(tasks) < 2:
        raise CannotJoin("there is one task, and nothing to put together with it")
    if any("/" in task.name for task in tasks):
        raise CannotJoin("a stage of the recipe teaches several tasks already")
    first, heads = recipe.stages[0], _shared_heads(recipe, tasks)
    objectives = {task.name: _table(task.objective) | heads.get(task.name, {}) for task in tasks}
    table = {
        "name": recipe.name, "seed": recipe.seed, "model": _table(recipe.model),
        "stage": [
            {
                "name": STAGE,
                "objective": {"use": "multitask", "tasks": objectives},
                "adaptation": _table(first.adaptation),
                "data": {
                    "train": _mixed({task.name: task.data.train for task in tasks}),
                    **_tests(tasks), "overlap": first.data.overlap,
                },
                "evaluator": _evaluators(tasks),
                "training": _training(recipe),
            }
        ],
    }  # fmt: skip
    try:
        return recipe_from_table(table, f"{recipe.source} (all tasks at once)", recipe.text, registry=registry)
    except RecipeError as error:
        raise CannotJoin("; ".join(f"{problem.path}: {problem.reason}" for problem in error.problems)) from error


def _shared_heads(recipe: Recipe, tasks: list[TaskSpec]) -> dict[str, dict[str, str]]:
    """By task a name for its head, where another task has the same, as stages share it; in one stage that must be said.

    Which labels a head has may stand in the rows alone: they are read where it matters.
    """
    if sum(HEAD in type(task.objective.options).model_fields for task in tasks) < 2:
        return {}
    run = Run(recipe, None, make_accelerator(), Events([]), lambda: False)
    run.source = build(recipe.model, ModelSource)
    run.read_rows()
    named: dict[str, dict[str, str]] = {}
    for rows in run.rows:
        alike = [other.task for other in run.rows if other.objective.head == rows.objective.head]
        if len(alike) > 1 and rows.objective.head.labels and not rows.objective.head.name:
            named[rows.task] = {HEAD: alike[0]}
    return named


def _training(recipe: Recipe) -> dict[str, Any]:
    """The first stage's, without what watches it, as long as all stages together."""
    trainings = [stage.training for stage in recipe.stages]
    steps = [training.steps for training in trainings if training.steps is not None]
    if steps and len(steps) < len(trainings):
        raise CannotJoin("some stages count their length in steps and others in epochs")
    unused = {*Watching.model_fields, "steps", "epochs"}
    table = {
        key: value
        for key, value in trainings[0].model_dump(mode="json", exclude_unset=True).items()
        if key not in unused and value is not None
    }
    epochs = max(training.epochs or DEFAULT_EPOCHS for training in trainings)
    return {**table, **({"steps": sum(steps)} if steps else {"epochs": epochs})}


def _tests(tasks: list[TaskSpec]) -> dict[str, Any]:
    """The test rows that tasks name; those of the others come from the sources of their training rows, as they did."""
    named = {task.name: task.data.test for task in tasks if task.data.test is not None}
    return {"test": _mixed(named)} if named else {}


def _evaluators(tasks: list[TaskSpec]) -> list[dict[str, Any]]:
    found: list[PartSpec] = []
    for spec in (spec for task in tasks for spec in task.evaluators):
        if spec.resolved() not in [other.resolved() for other in found]:
            found.append(spec)
    return [_table(spec) for spec in found]


def _mixed(parts: Mapping[str, PartSpec | None]) -> dict[str, Any]:
    return {"use": "mixture", "parts": {name: _table(part) for name, part in parts.items() if part is not None}}


def _table(spec: PartSpec) -> dict[str, Any]:
    """A part as a recipe writes it."""
    table: dict[str, Any] = {"use": spec.use, **_written(spec.options.model_dump(mode="json", exclude_unset=True))}
    if spec.kind == "evaluator" and spec.name != spec.variant.name:
        table["name"] = spec.name
    if spec.transforms:
        table["transform"] = [_table(transform) for transform in spec.transforms]
    return table


def _written(value: Any) -> Any:
    """Without what stands for nothing: TOML has no null."""
    if isinstance(value, dict):
        return {key: _written(each) for key, each in value.items() if each is not None}
    return value
