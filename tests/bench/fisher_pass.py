"""A pass over rows for the Fisher information of what LoRA moves, beside the plain ways to gradients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ftk.context import Context
from ftk.parts import Batch, Features
from ftk_plugins.mitigations.ewc.collector import Collector
from tests.bench.stages import LORA, smollm2_model, stage_of

BATCH, LONGEST = 8, 32


@dataclass(frozen=True)
class FisherPass:
    """Rows of 32 tokens, the model in ``eval`` mode and float32, and the weights that its LoRA layers stand on.

    Attributes:
        ctx: the stage's context.
        weights: by name.
        squares: float32 sums by the same names.
        items: the rows.
        batches: the same rows, 8 in each.
    """

    ctx: Context
    weights: dict[str, Tensor]
    squares: dict[str, Tensor]
    items: list[Features]
    batches: list[Batch]

    def hooked(self) -> None:
        """ftk's pass: squares of each row's gradients, from batches."""
        self._need_gradients(False)
        collector = Collector(self.ctx.model, self.weights, self.squares)
        with collector:
            for batch in self.batches:
                collector.add(lambda batch=batch: self._total(batch), BATCH)  # type: ignore[misc]

    def one_by_one(self) -> None:
        """The same by one backward pass for each row."""
        self._need_gradients(True)
        for item in self.items:
            self._total(self.ctx.objective.collate([item]).to(self.ctx.device)).backward()
            for name, weight in self.weights.items():
                assert weight.grad is not None
                self.squares[name].addcmul_(weight.grad, weight.grad)
                weight.grad = None

    def batched(self) -> None:
        """Plain forward and backward passes of the batches, with gradients of the weights and no squares."""
        self._need_gradients(True)
        for batch in self.batches:
            self._total(batch).backward()
            for weight in self.weights.values():
                weight.grad = None

    def check(self) -> None:
        """Raise unless the two ways to the squares give the same."""
        found = []
        for way in (self.hooked, self.one_by_one):
            for square in self.squares.values():
                square.zero_()
            way()
            found.append({name: square.clone() for name, square in self.squares.items()})
        for name, square in found[0].items():
            torch.testing.assert_close(square, found[1][name], rtol=1e-3, atol=1e-3 * float(square.mean()))

    def _total(self, batch: Batch) -> Tensor:
        return self.ctx.objective.loss(self.ctx.model, batch, self.ctx).total

    def _need_gradients(self, needed: bool) -> None:
        for weight in self.weights.values():
            weight.requires_grad_(needed)


def fisher_pass(folder: Path) -> FisherPass:
    """Set it up on SmolLM2-135M with 8 rows."""
    stage = stage_of(
        folder, [], words=(50, 80), longest=LONGEST, training={"precision": "fp32"}, adaptation=LORA,
        model=smollm2_model(),
    )  # fmt: skip
    ctx = stage.ctx
    ctx.model.eval().requires_grad_(False)
    weights = {name: drift.weight for name, drift in stage.adaptation.drift().items()}
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    items = stage.task.train.items[:BATCH]
    return FisherPass(ctx, weights, squares, items, [ctx.objective.collate(items).to(ctx.device)])
