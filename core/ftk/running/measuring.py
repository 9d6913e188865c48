"""Measuring tasks with their evaluators: every task, every probe, as the score matrix needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from ftk.data.steps import told
from ftk.errors import FtkError, RunFailed
from ftk.parts import Context, Evaluator, Examples, Metric, Note, Task, evaluated
from ftk.recipe.building import build
from ftk.recipe.measured import OWN_ROWS, WHILE_TRAINING
from ftk.recipe.specs import PartSpec
from ftk.report.scores import Scores

Found = TypeVar("Found")


def measure_tasks(ctx: Context, tasks: Sequence[Task], scores: Scores) -> None:
    """Measure every task with the model as it stands, through the task's own head, and record it.

    Args:
        ctx: the context, with the model.
        tasks: all tasks of the run.
        scores: takes the numbers, as measured after the context's stage.
    """
    for done, task in enumerate(tasks):
        ctx.events("phase", text=f"measuring {task.name}", done=done, total=len(tasks))
        metrics, notes = _measure(ctx, _asked(task, "test"), noted=True)
        of_rows = tuple(evaluator for evaluator in task.evaluators if not isinstance(evaluator, OfItself))
        for name, probe in task.probes.items():
            found, more = _measure(ctx, replace(task, test=probe, evaluators=of_rows), noted=True)
            metrics += [replace(metric, name=f"{metric.name}@{name}") for metric in found]
            notes += [replace(note, name=f"{note.name}@{name}") for note in more]
        scores.record(ctx.stage, task.name, metrics, notes)
        values = {metric.name: metric.value for metric in metrics}
        ctx.events("measured", after=ctx.stage, task=task.name, metrics=values)


def measure_task(ctx: Context, task: Task, split: str) -> list[Metric]:
    """Measure one task on its ``test`` or ``validation`` rows; where it has none, by evaluators with rows of their own.

    Raises:
        RunFailed: an evaluator broke.
    """
    return _measure(ctx, _asked(task, split))[0]


def _asked(task: Task, split: str) -> Task:
    """The task with the rows of a split as its test rows, and the evaluators that measure then."""
    examples: Examples | None = getattr(task, split)
    asked = [
        evaluator
        for evaluator in task.evaluators
        if (split == "test" or evaluator.while_training if isinstance(evaluator, OfItself) else examples is not None)
    ]
    return replace(task, test=examples, evaluators=tuple(asked))


def _measure(ctx: Context, task: Task, *, noted: bool = False) -> tuple[list[Metric], list[Note]]:
    metrics: list[Metric] = []
    notes: list[Note] = []
    ctx = replace(ctx.through(task.objective), shared={})
    with evaluating(ctx.model):
        for evaluator in task.evaluators:
            rows = evaluator.rows if isinstance(evaluator, OfItself) else task.test
            numbers = rows.numbers if noted and rows is not None else None
            metrics += [replace(metric, rows=numbers) for metric in _call(evaluator, evaluator.measure, task, ctx)]
        for evaluator in task.evaluators if noted else ():
            notes += _call(evaluator, evaluator.notes, task, ctx)
    return metrics, notes


def _call(
    evaluator: Evaluator, method: Callable[[nn.Module, Task, Context], list[Found]], task: Task, ctx: Context
) -> list[Found]:
    ctx.check_interrupt()
    try:
        return method(ctx.model, task, ctx)
    except FtkError:
        raise
    except Exception as error:
        name = type(evaluator).__name__
        raise RunFailed(f"evaluator {name} failed: {type(error).__name__}: {error}") from error


class Renamed(Evaluator):
    """An evaluator that the recipe gave a name of its own, so that its metrics stand apart from another's."""

    def __init__(self, evaluator: Evaluator, name: str) -> None:
        self._evaluator = evaluator
        self._name = name

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        metrics = self._evaluator.measure(model, task, ctx)
        alone = len(metrics) == 1
        return [replace(m, name=self._name if alone else f"{self._name}.{m.name}") for m in metrics]

    def notes(self, model: nn.Module, task: Task, ctx: Context) -> list[Note]:
        notes = self._evaluator.notes(model, task, ctx)
        return [replace(n, name=self._name if len(notes) == 1 else f"{self._name}.{n.name}") for n in notes]


class OfItself(Evaluator):
    """An evaluator that measures rows of its own, whatever those of the task are."""

    def __init__(self, evaluator: Evaluator, rows: Examples | None, while_training: bool) -> None:
        self._evaluator = evaluator
        self.rows = rows
        self.while_training = while_training

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        return self._evaluator.measure(model, replace(task, test=self.rows), ctx)

    def notes(self, model: nn.Module, task: Task, ctx: Context) -> list[Note]:
        return self._evaluator.notes(model, replace(task, test=self.rows), ctx)


def build_evaluator(spec: PartSpec, read: Callable[[PartSpec], Examples]) -> Evaluator:
    """Build an evaluator, with the data sets that it names; where the recipe names it, its metrics carry that name."""
    evaluator = build(spec, Evaluator)
    sets = {part.name: read(part) for part in spec.parts}
    rows = sets.pop("data", None)
    with told(spec):
        evaluator.take({name: found.rows for name, found in sets.items()})
    if spec.name != spec.variant.name:
        evaluator = Renamed(evaluator, spec.name)
    given = spec.provides()
    return OfItself(evaluator, rows, WHILE_TRAINING in given) if OWN_ROWS in given else evaluator


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in ``eval`` mode and no graph is made."""
    with evaluated(model), torch.no_grad():
        yield
