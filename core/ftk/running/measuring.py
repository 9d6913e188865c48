"""Measuring tasks with their evaluators: every task, every probe, as the score matrix needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from ftk.errors import FtkError, RunFailed
from ftk.parts import Context, Evaluator, Examples, Metric, Task, evaluated
from ftk.recipe.building import build
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
        for name, probe in task.probes.items():
            found = _measure(ctx, task, probe)
            metrics += [replace(metric, name=f"{metric.name}@{name}") for metric in found]
        scores.record(ctx.stage, task.name, metrics)
        told = {metric.name: metric.value for metric in metrics}
        ctx.events("measured", after=ctx.stage, task=task.name, metrics=told)


def measure_task(ctx: Context, task: Task, split: str) -> list[Metric]:
    """Measure one task on its ``test`` or ``validation`` rows; no metrics where it has none.

    Raises:
        RunFailed: an evaluator broke.
    """
    examples: Examples | None = getattr(task, split)
    return [] if examples is None else _measure(ctx, task, examples)


def _measure(ctx: Context, task: Task, examples: Examples) -> list[Metric]:
    metrics: list[Metric] = []
    chosen, ctx = replace(task, test=examples), replace(ctx.through(task.objective), shared={})
    with evaluating(ctx.model):
        for evaluator in task.evaluators:
            ctx.check_interrupt()
            try:
                metrics += evaluator.measure(ctx.model, chosen, ctx)
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


def build_evaluator(spec: PartSpec) -> Evaluator:
    """Build an evaluator; where the recipe names it, its metrics carry that name."""
    evaluator = build(spec, Evaluator)
    return evaluator if spec.name == spec.variant.name else Renamed(evaluator, spec.name)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in ``eval`` mode and no graph is made."""
    with evaluated(model), torch.no_grad():
        yield
