"""Perplexity: how many equally likely tokens the model hesitates between, on average."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ftk import RunFailed, UserError
from ftk.parts import (
    Context,
    Evaluator,
    Loss,
    Metric,
    Resampling,
    Task,
    add_up,
    batches_of_process,
    gathered,
    lengths_of,
    tested,
)
from ftk_plugins.evaluators.perplexity.options import PerplexityOptions


class Perplexity(Evaluator):
    """``exp(Σ −log p(target) / Σ targets)`` over all test rows: every token counts alike, not every row."""

    def __init__(self, options: PerplexityOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``perplexity``.

        Raises:
            UserError: there are no test rows, or nothing in them is a target.
            RunFailed: the loss is not a finite number.
        """
        examples = tested(task)
        items = examples.items
        lengths = lengths_of(items).tolist()
        losses = []
        targets = 0
        own: list[tuple[int, float, int]] = []
        for indices, counts in batches_of_process(lengths, self.options.batch_size or ctx.micro_batch_size, ctx):
            batch = task.objective.collate([items[index] for index in indices]).to(ctx.device)
            with ctx.autocast():
                loss = task.objective.loss(model, batch, ctx)
            if counts:
                losses.append(loss.total.detach())
                targets += loss.count
                own += _rows_of(loss, indices)
        total = torch.stack(losses).cpu().double().sum().item() if losses else 0.0
        nats, tokens = add_up([total, targets], ctx)
        if tokens == 0:
            raise UserError(f"{examples.origin}: no row has a token to predict", "give rows of more than one token")
        if not math.isfinite(nats):
            raise RunFailed(
                f"task `{task.name}`: the model's loss on {examples.origin} is {nats}; it has diverged, or"
                f" its numbers do not fit {ctx.precision}"
            )
        resampling = _resampling(sorted(gathered(own, ctx)), len(items))
        return [Metric("perplexity", _exp(nats / tokens), higher_is_better=False, resampling=resampling)]


def _rows_of(loss: Loss, indices: list[int]) -> list[tuple[int, float, int]]:
    """The number of each row of a batch, its negative log-likelihood and its targets; none where they are not told."""
    if not {"row_nats", "row_targets"} <= set(loss.outputs):
        return []
    told = loss.outputs["row_nats"].tolist(), loss.outputs["row_targets"].tolist()
    return list(zip(indices, *told, strict=True))


def _resampling(rows: list[tuple[int, float, int]], count: int) -> Resampling | None:
    """The perplexity of any rows; None where some are not known."""
    if len(rows) < count:
        return None
    _, nats, targets = np.array(rows).T

    def value(chosen: np.ndarray) -> float:
        tokens = targets[chosen].sum()
        return _exp(nats[chosen].sum() / tokens) if tokens else math.nan

    return Resampling(count, value)


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
