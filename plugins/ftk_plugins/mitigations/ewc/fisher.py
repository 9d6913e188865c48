"""The Fisher information: the mean over rows of what each row's own log-likelihood gradient says of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk import UserError
from ftk.parts import Batch, ComparingObjective, Context, Task
from ftk_plugins.mitigations.earlier import refuse_empty

from .collector import NotPerSample
from .rows import draw_rows, exact_arithmetic
from .scoring import Scoring, not_finite
from .squares import Measure
from .sums import Kind, sums_of, trace

Labels = Literal["empirical", "sample", "exact"]
"""Targets: the rows' own, drawn from the model, or every one that a row can have, by its probability."""


@dataclass(frozen=True)
class Fisher:
    """An estimate.

    Attributes:
        parts: float32 by the weight's name: its diagonal, shaped as the weight; or two factors, the name followed by
            ``/rows`` and ``/columns``, of one number or one line of a symmetric matrix for each row and column.
        trace: the sum of the diagonal of all weights: the mean over rows of the gradient's squared norm, in nats².
        samples: the rows it was estimated on.
    """

    parts: dict[str, Tensor]
    trace: float
    samples: int


@dataclass(frozen=True)
class Estimate:
    """How an estimate is made.

    Attributes:
        samples: how many rows; all of them where there are fewer.
        batch_size: rows per pass; None: the stage's micro-batch.
        labels: which targets.
        kind: in what form it is held; what has no such form is held as the diagonal.
        of: the squares of the rows' gradients, or their sizes.
        loss: of what the gradients are, summed over a batch's rows; None: the objective's loss.
        method: the mitigation's name, for messages.
        what: what is measured, for messages.
    """

    samples: int
    batch_size: int | None = None
    labels: Labels = "empirical"
    kind: Kind = "diagonal"
    of: Measure = "square"
    loss: Callable[[Batch, Context], Tensor] | None = None
    method: str = "ewc"
    what: str = "Fisher information"


def estimate_fisher(task: Task, ctx: Context, weights: Mapping[str, Tensor], how: Estimate) -> Fisher:
    """Estimate the Fisher information of ``weights`` on the training rows of ``task``.

    The model runs in ``eval`` mode and float32. Rows are drawn without replacement; each process takes its
    share. A sharded model runs in the precision of the training instead: its weights are put together in that type,
    and no process could hold all of them in another. A diagonal is sharded as the weights are.

    Args:
        task: whose training rows and objective.
        ctx: the moment; its model owns the weights.
        weights: by name; found in the model by identity.
        how: see :class:`Estimate`.

    Raises:
        UserError: the task has no rows.
        RunFailed: a gradient is not finite.
    """
    _refuse_compared(task, how)
    refuse_empty(how.method, task, f"nothing tells what `{task.name}` depends on")
    rows = draw_rows(task, how.samples, ctx.generator("fisher", task.name))
    sharded = any(isinstance(weight, DTensor) for weight in weights.values())
    # The hooks must hear every call of a layer, the output layer's too, with all of its outputs.
    ctx = replace(ctx, precision=ctx.precision if sharded else "fp32", loss_chunks=1)
    scoring = Scoring(task, ctx, weights, how, len(rows), sharded)
    with exact_arithmetic(ctx.model, ctx.device):
        try:
            sums = scoring.batched(rows, sums_of(ctx.model, weights, how.kind, how.of))
        except NotPerSample as reason:
            beside = "; no layer's factors can be had then, and its diagonal is kept" if how.kind == "kfac" else ""
            ctx.events(
                "warning",
                text=f"{how.method}: the gradients of a batch cannot be told apart by row ({reason}); the "
                f"{how.what} is estimated row by row, which gives the same and takes longer{beside}",
            )
            kind = "diagonal" if how.kind == "kfac" else how.kind
            sums = scoring.one_by_one(rows, sums_of(ctx.model, weights, kind, how.of))
    for each in sums.values() if ctx.world_size > 1 else ():
        for total in each.tensors():
            if not isinstance(total, DTensor):
                torch.distributed.all_reduce(total)
    parts = {name + suffix: part for name, each in sums.items() for suffix, part in each.mean(len(rows)).items()}
    found = trace(parts)
    if not math.isfinite(found):
        raise not_finite(task, how.method)
    return Fisher(parts, found, len(rows))


def rehearse_fisher(task: Task, ctx: Context, weights: Mapping[str, Tensor], how: Estimate) -> dict[str, Tensor]:
    """What an estimate keeps, by weight, of any values; its largest batch goes through the model once.

    A batch is squared as one row would be: the gradient of one weight at a time beside what its layers keep.
    """
    _refuse_compared(task, how)
    batch_size = how.batch_size or ctx.micro_batch_size
    rows = draw_rows(task, how.samples, ctx.generator("fisher", task.name))[:batch_size]
    how = replace(how, labels="empirical")
    scoring = Scoring(task, replace(ctx, precision="fp32"), weights, how, len(rows), sharded=False)
    sums = sums_of(ctx.model, weights, how.kind, how.of)
    with exact_arithmetic(ctx.model, ctx.device):
        scoring.add_by_autograd(sums, task.objective.collate(rows).to(ctx.device))
    return {name + suffix: part for name, each in sums.items() for suffix, part in each.mean(1).items()}


def _refuse_compared(task: Task, how: Estimate) -> None:
    if isinstance(task.objective, ComparingObjective):
        raise UserError(
            f"mitigation {how.method}: the objective of `{task.name}` compares rows with each other, and the"
            f" {how.what} is made of the gradients of single rows",
            "guard that task with another mitigation, such as replay or interpolation",
        )
