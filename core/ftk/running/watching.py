"""Watching a stage while it trains: when every task is measured, which evaluation was best, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftk.errors import UserError, did_you_mean
from ftk.parts import Context, Metric
from ftk.recipe.watching import Watching
from ftk.report.scores import Scores

History = Sequence[Mapping[str, Any]]
"""A stage's evaluations in order, as ``report.json`` shows them: ``step``, ``tokens``, ``scores`` by task and
metric and, where something depends on it, ``criterion``; a number that is not finite is None."""


@dataclass(frozen=True)
class Watch:
    """What the recipe says about watching a stage; all else follows from the evaluations so far."""

    options: Watching

    def due(self, step: int, steps: int, history: History) -> bool:
        """Whether to measure after ``step`` of ``steps``: every so often, before the first and after the last."""
        every = self.options.evaluate_every
        if not every or (history and history[-1]["step"] == step):
            return False
        return step % every == 0 or step == steps

    def measure(self, ctx: Context, tokens: int) -> dict[str, Any]:
        """Measure every task so far on its validation rows, with the model as it stands.

        Args:
            ctx: the stage's context at this step.
            tokens: that the stage has trained on.

        Returns:
            The entry of the history.

        Raises:
            UserError: the new task lacks the metric that is to tell the best, or every earlier task does.
        """
        found = {}
        tasks = (*ctx.earlier, *ctx.taught)
        for done, task in enumerate(tasks):
            ctx.events("phase", text="evaluating", done=done, total=len(tasks))
            found[task.name] = ctx.measure_task(task, "validation")
        entry: dict[str, Any] = {
            "step": ctx.step,
            "tokens": tokens,
            "scores": {
                name: {metric.name: _finite(metric.value) for metric in metrics}
                for name, metrics in found.items()
                if metrics
            },
        }
        if self.options.chooses:
            entry["criterion"] = _finite(criterion(self.options, [task.name for task in ctx.taught], found))
        ctx.events("evaluated", stage=ctx.stage, steps=ctx.steps, **entry)
        return entry

    def best(self, history: History) -> int | None:
        """The step of the best evaluation, of equals the first; None where nothing tells them apart."""
        known = [entry for entry in history if entry.get("criterion") is not None]
        return max(known, key=lambda entry: entry["criterion"])["step"] if known else None

    def kept(self, history: History) -> int | None:
        """The step whose weights the stage will leave; None: those of its last step."""
        return self.best(history) if self.options.keep == "best" else None

    def facts(self, step: int, steps: int, history: History) -> dict[str, Any]:
        """What ``report.json`` tells of a stage that ended after ``step`` of ``steps``."""
        return {
            "stopped_at": step if step < steps else None,
            "best_step": self.best(history),
            "kept_step": step if self.kept(history) is None else self.kept(history),
            "history": list(history),
        }

    def exhausted(self, history: History) -> bool:
        """Whether so many evaluations have brought no improvement that the stage ends here."""
        stopping = self.options.early_stopping
        if stopping is None:
            return False
        best, waited = -math.inf, 0
        for entry in history:
            value = entry["criterion"]
            if value is not None and value > best + stopping.min_delta:
                best, waited = value, 0
            else:
                waited += 1
        return waited >= stopping.patience


def criterion(options: Watching, taught: Sequence[str], found: Mapping[str, Sequence[Metric]]) -> float:
    """``±R[new] + retention_weight · mean(±R[earlier])`` of one metric, minus where lower is better; NaN is the worst.

    Where a stage teaches several tasks, ``R[new]`` is the mean over those that have the metric.

    Args:
        options: name the metric and the weight.
        taught: the new tasks' names.
        found: what was measured of each task.

    Raises:
        UserError: the new task lacks the metric, or it is to be weighed and every earlier task lacks it.
    """
    names = list(dict.fromkeys(metric.name for task in taught for metric in found[task]))
    wanted = options.best_by or (names[0] if names else "to go by")
    signed = {
        name: metric.value if metric.higher_is_better else -metric.value
        for name, metrics in found.items()
        for metric in metrics
        if metric.name == wanted
    }
    new = [signed.pop(task) for task in taught if task in signed]
    if not new:
        told = ", ".join(f"`{task}`" for task in taught)
        raise UserError(f"training.best_by: task {told} has no metric `{wanted}`", did_you_mean(wanted, names))
    total = math.fsum(new) / len(new)
    if options.retention_weight and len(found) > len(taught):
        if not signed:
            raise UserError(
                f"training.retention_weight: no earlier task has the metric `{wanted}` on validation data",
                "name one with training.best_by that the earlier tasks have too, or leave retention_weight out",
            )
        total += options.retention_weight * math.fsum(signed.values()) / len(signed)
    return total


def check_names(options: Sequence[Watching], scores: Scores) -> None:
    """Find a metric that no evaluator measures before anything is trained; the start's scores tell the names.

    Raises:
        UserError: `best_by` of one of the stages names it.
    """
    names = [name for name in scores.metrics if "@" not in name]
    for wanted in (its.best_by for its in options):
        if wanted and wanted not in names:
            raise UserError(f"training.best_by: no evaluator measures `{wanted}`", did_you_mean(wanted, names))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
