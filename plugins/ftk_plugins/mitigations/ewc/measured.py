"""The loss of the rows that the Fisher information was estimated on, as the model stands."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.distributed.tensor import DTensor

from ftk.parts import Context, Task, add_up, batches_of_process, derive_seed, lengths_of

from .rows import NARROW, draw_rows, exact_arithmetic

FEW = 64
"""Rows of each task that are looked at while a stage trains."""


class Probe:
    """The rows of one task's estimate.

    Args:
        task: whose training rows and objective.
        ctx: of any moment.
        samples: as in the estimate.
        batch_size: rows per pass.
        stage: the number of the stage in which the rows were drawn.
    """

    def __init__(self, task: Task, ctx: Context, samples: int, batch_size: int, stage: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed(ctx.seed, stage, "fisher", task.name))
        self._objective, self._batch_size = task.objective, batch_size
        self._rows = draw_rows(task, samples, generator)

    def loss(self, ctx: Context, few: bool = False) -> float:
        """The mean loss in nats for each target (token or row), of all rows or of :data:`FEW` of them.

        In the arithmetic of the estimate: ``eval`` mode and float32, with the rows' own targets. Where the model is
        sharded, or several processes train weights of half precision, in the precision of the training.
        """
        ctx = ctx.through(self._objective)
        rows = self._rows[:: -(-len(self._rows) // FEW)] if few else self._rows
        weights = list(ctx.model.parameters())
        bound = ctx.world_size > 1 and any(weight.requires_grad and weight.dtype in NARROW for weight in weights)
        if not bound and not any(isinstance(weight, DTensor) for weight in weights):
            ctx = replace(ctx, precision="fp32")
        nats = targets = 0.0
        with exact_arithmetic(ctx.model, ctx.device, widen=not bound), torch.no_grad(), ctx.autocast():
            for indices, counts in batches_of_process(lengths_of(rows).tolist(), self._batch_size, ctx):
                batch = self._objective.collate([rows[index] for index in indices]).to(ctx.device)
                total = float(self._objective.loss(ctx.model, batch, ctx).total)
                if counts:
                    nats, targets = nats + total, targets + batch.count
        nats, targets = add_up([nats, targets], ctx)
        return nats / targets
