"""How much of what was known is left, measured on validation data while a stage goes on: for whoever holds a floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch.distributed

from ftk import UserError, did_you_mean
from ftk.parts import Context, Metric, Task


def refuse_unvalidated(name: str, purpose: str, ctx: Context) -> None:
    """Find out before the training whether every task so far can be measured on validation data.

    Args:
        name: of the mitigation, for the message.
        purpose: what the data are for there: "choose `alpha` on".
        ctx: the stage.

    Raises:
        UserError: a task has no validation data or no evaluator.
    """
    for task in (*ctx.earlier, *(task for task in ctx.taught if task.evaluators or not ctx.beside)):
        if task.validation is None:
            raise UserError(
                f"{name}: task {task.name!r} has no validation data to {purpose}",
                "add data.validation (and data.retain_validation), or leave the choice out",
            )
        if not task.evaluators:
            raise UserError(f"{name}: no evaluator measures task {task.name!r}", "add an [[evaluator]] table")


def kept_scores(name: str, metric: str | None, ctx: Context) -> dict[str, Metric]:
    """What each earlier task scores on validation data now, by its name.

    Args:
        name: of the mitigation, for the message.
        metric: the metric; None: the first that each task has.
        ctx: the stage, with the model as it stands.

    Raises:
        UserError: a task lacks the metric.
    """
    return {task.name: _scores(name, [task], metric, ctx)[0] for task in ctx.earlier}


def learned_score(name: str, metric: str | None, ctx: Context) -> Metric:
    """What the stage's own task scores now; of several tasks the mean over those that have the metric.

    Arguments and errors are those of :func:`kept_scores`.
    """
    scores = _scores(name, ctx.taught, metric, ctx)
    mean = math.fsum(score.value for score in scores) / len(scores)
    return replace(scores[0], value=mean, detail={}, resampling=None)


def retained(now: Metric, start: float) -> float:
    """How much of ``start`` is left: ``now / start``, or ``start / now`` where lower is better; unit 1.

    A ratio needs positive values; where one is missing, the answer is 1 if nothing was lost and else 0.
    """
    if now.value > 0 and start > 0:
        return now.value / start if now.higher_is_better else start / now.value
    if math.isnan(now.value) or math.isnan(start):
        return math.nan
    lost = now.value < start if now.higher_is_better else now.value > start
    return 0.0 if lost else 1.0


def worst_of(retention: Sequence[float]) -> float:
    """The least of several; 1 where there are none, and below all others for NaN."""
    return min((-math.inf if math.isnan(value) else value for value in retention), default=1.0)


def _scores(name: str, tasks: Sequence[Task], metric: str | None, ctx: Context) -> list[Metric]:
    metrics = [found for task in tasks for found in ctx.measure_task(task, "validation")]
    wanted = metric or next((found.name for found in metrics), None)
    scores = [found for found in metrics if found.name == wanted]
    if not scores:
        lacking = "a metric" if wanted is None else f"the metric {wanted!r}"
        raise UserError(
            f"{name}: task {' and '.join(repr(task.name) for task in tasks)} lacks {lacking}",
            did_you_mean(wanted or "", (found.name for found in metrics)),
        )
    if ctx.world_size == 1:
        return scores
    values = [score.value for score in scores]
    torch.distributed.broadcast_object_list(values)  # what follows from them must be the same on unlike devices
    return [replace(score, value=value) for score, value in zip(scores, values, strict=True)]
