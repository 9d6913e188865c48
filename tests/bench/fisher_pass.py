"""A pass over rows for the Fisher information of what LoRA moves, beside the plain ways to gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftk.parts import Batch, Context, Features
from ftk_plugins.mitigations.ewc.collector import Collector
from tests.bench.pairs import Measured, alternate, divided
from tests.bench.stages import LORA, smollm2_model, stage_of

LONGEST = 32
SMALL = {"use": "scratch", "architecture": "llama", "hidden_size": 192, "layers": 4, "heads": 4}
"""The model of ``recipes/ewc_lora.toml``."""


@dataclass(frozen=True)
class FisherPass:
    """Rows of 32 tokens, the model in ``eval`` mode and float32, and the weights that its LoRA layers stand on.

    Attributes:
        ctx: the stage's context.
        weights: by name.
        squares: float32 sums by the same names.
        items: the rows.
        batch: the same rows in one batch.
    """

    ctx: Context
    weights: dict[str, Tensor]
    squares: dict[str, Tensor]
    items: list[Features]
    batch: Batch

    def hooked(self) -> None:
        """ftk's pass: squares of each row's gradients, from batches."""
        self._need_gradients(False)
        collector = Collector(self.ctx.model, self.weights, self.squares)
        with collector:
            collector.add(lambda: self._total(self.batch), len(self.items))

    def one_by_one(self) -> None:
        """The same by one backward pass for each row, as it is usually written."""
        self._need_gradients(True)
        for item in self.items:
            self._total(self.ctx.objective.collate([item]).to(self.ctx.device)).backward()
            for name, weight in self.weights.items():
                assert weight.grad is not None
                self.squares[name] += weight.grad**2
                weight.grad = None

    def batched(self) -> None:
        """A plain forward and backward pass of the batch, with gradients of the weights and no squares."""
        self._need_gradients(True)
        self._total(self.batch).backward()
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


Way = Callable[[FisherPass], None]
"""One of the passes of a :class:`FisherPass`."""


def compare(folder: Path, pairs: int, above: Way, below: Way) -> Measured:
    """The time of one way over that of another, on SmolLM2-135M; beside it, on a small model, the same.

    Both ways to the squares are first held against each other.
    """
    small, large = (set_up(folder, model, rows) for model, rows in ((SMALL, 64), (smollm2_model(), 8)))
    small.check()
    large.check()
    device = large.ctx.device
    ratios = [divided(*alternate(partial(above, work), partial(below, work), pairs, device)) for work in (small, large)]
    beside = Measured(ratios[0], device)
    facts = {"small_ratio": beside.median, "small_min": min(beside.ratios), "small_max": max(beside.ratios)}
    return Measured(ratios[1], device, facts)


def set_up(folder: Path, model: dict[str, Any], rows: int) -> FisherPass:
    """So many rows of made-up text, and the model of this recipe table."""
    stage = stage_of(
        folder, [], words=(50, 80), longest=LONGEST, training={"precision": "fp32"}, adaptation=LORA,
        model=model,
    )  # fmt: skip
    ctx = stage.ctx
    ctx.model.eval().requires_grad_(False)
    weights = {name: drift.weight for name, drift in stage.adaptation.drift().items()}
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    items = stage.ctx.taught[0].train.items[:rows]
    return FisherPass(ctx, weights, squares, items, ctx.objective.collate(items).to(ctx.device))
