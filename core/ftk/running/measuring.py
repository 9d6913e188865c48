"""Measuring tasks with their evaluators: every task, every probe, as the score matrix needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from ftk.data.steps import told
from ftk.errors import FtkError, RunFailed
from ftk.parts import Context, Evaluator, Examples, Metric, Task, evaluated
from ftk.recipe.building import build
from ftk.recipe.measured import OWN_ROWS, WHILE_TRAINING
from ftk.recipe.specs import PartSpec
from ftk.report.scores import Scores


def measure_tasks(ctx: Context, tasks: Sequence[Task], scores: Scores) -> None:
    """Measure every task with the model as it stands, through the task's own head, and record it.

    Args:
        ctx: the context, with the model.
        tasks: all tasks of the run.
        scores: takes the numbers, as measured after the context's stage.
    """
    for done, task in enumerate(tasks):
        ctx.events("phase", text=f"measuring {task.name}", done=done, total=len(tasks))
        metrics = measure_task(ctx, task, "test")
        of_rows = tuple(evaluator for evaluator in task.evaluators if not isinstance(evaluator, OfItself))
        for name, probe in task.probes.items():
            found = _measure(ctx, replace(task, test=probe, evaluators=of_rows))
            metrics += [replace(metric, name=f"{metric.name}@{name}") for metric in found]
        scores.record(ctx.stage, task.name, metrics)
        told = {metric.name: metric.value for metric in metrics}
        ctx.events("measured", after=ctx.stage, task=task.name, metrics=told)


def measure_task(ctx: Context, task: Task, split: str) -> list[Metric]:
    """Measure one task on its ``test`` or ``validation`` rows; where it has none, by evaluators with rows of their own.

    Raises:
        RunFailed: an evaluator broke.
    """
    examples: Examples | None = getattr(task, split)
    asked = [
        evaluator
        for evaluator in task.evaluators
        if (split == "test" or evaluator.while_training if isinstance(evaluator, OfItself) else examples is not None)
    ]
    return _measure(ctx, replace(task, test=examples, evaluators=tuple(asked)))


def _measure(ctx: Context, task: Task) -> list[Metric]:
    metrics: list[Metric] = []
    ctx = replace(ctx.through(task.objective), shared={})
    with evaluating(ctx.model):
        for evaluator in task.evaluators:
            ctx.check_interrupt()
            try:
                metrics += evaluator.measure(ctx.model, task, ctx)
            except FtkError:
                raise
            except Exception as error:
                name = type(evaluator).__name__
                raise RunFailed(f"evaluator {name} failed: {type(error).__name__}: {error}") from error
    return metrics


class Renamed(Evaluator):
    """An evaluator that the recipe gave a name of its own, so that its metrics stand apart from another's."""

    def __init__(self, evaluator: Evaluator, name: str) -> None:
        self._evaluator = evaluator
        self._name = name

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        metrics = self._evaluator.measure(model, task, ctx)
        alone = len(metrics) == 1
        return [replace(m, name=self._name if alone else f"{self._name}.{m.name}") for m in metrics]


class OfItself(Evaluator):
    """An evaluator that measures rows of its own, whatever those of the task are."""

    def __init__(self, evaluator: Evaluator, rows: Examples | None, while_training: bool) -> None:
        self._evaluator = evaluator
        self._rows = rows
        self.while_training = while_training

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        return self._evaluator.measure(model, replace(task, test=self._rows), ctx)


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
