"""What the loss in chunks takes, in memory and in time, beside the loss from all logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk.parts import Batch, Context
from ftk.testing import toy_context
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from tests.bench.pairs import Goal, Measured, alternate, divided
from tests.bench.peaks import peak_bytes

WHAT = (
    "peak memory of the loss and its backward pass, in chunks over all logits at once; 2048 targets, vocabulary 49,152,"
    " 576 channels, output layer trained, float32"
)
GOAL = Goal("≤", 0.5)
ROWS, TIME, WIDTH, VOCABULARY = 8, 257, 576, 49_152


class OutputLayer(nn.Module):
    """SmolLM2-135M's output layer, on hidden states that are given: the loss's part of a model."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.randn(ROWS, TIME, WIDTH))
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(trained)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, input_ids: Tensor, logits_to_keep: Tensor) -> Any:
        return SimpleNamespace(logits=self.lm_head(self.hidden[: len(input_ids), logits_to_keep]))


def measure(folder: Path, quick: bool) -> Measured:
    """Run it: the losses are compared, then peaks and times are taken in pairs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    objective = CausalLM(CausalLMOptions())
    ids = np.random.default_rng(0).integers(VOCABULARY, size=(ROWS, TIME)).astype(np.int32)
    batch = objective.collate([{"input_ids": row, "labels": row} for row in ids]).to(device)
    ratios: list[float] = []
    facts: dict[str, Any] = {"targets": batch.count}
    for trained in (True, False):
        for precision in ("fp32", "bf16"):
            model = OutputLayer(trained).to(device)
            ctx = toy_context(model, objective, device=device, precision=precision)
            pieces = [partial(loss_and_gradients, replace(ctx, loss_chunks=n), batch) for n in (None, 1)]
            check(*pieces)
            peaks = [[float(peak_bytes(piece, device)) for piece in pieces] for _ in range(2 if quick else 5)]
            found = divided(*zip(*peaks, strict=True))
            times = divided(*alternate(pieces[0], pieces[1], 1 if quick else 5, device))
            ratios = ratios or found
            name = f"{'trained' if trained else 'frozen'}_{precision}"
            facts |= {
                f"{name}_ratio": sorted(found)[len(found) // 2],
                f"{name}_megabytes": [round(peak / 1e6) for peak in peaks[-1]],
                f"{name}_time_ratio": sorted(times)[len(times) // 2],
            }
    return Measured(ratios, device, facts)


def loss_and_gradients(ctx: Context, batch: Batch) -> Tensor:
    """One loss and its backward pass; the gradients are dropped."""
    with ctx.autocast():
        total = ctx.objective.loss(ctx.model, batch, ctx).total
    total.backward()  # type: ignore[no-untyped-call]
    ctx.model.zero_grad(set_to_none=True)
    return total.detach()


def check(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> None:
    """Raise unless both losses are the same; it is a first run of each, which does not count."""
    torch.testing.assert_close(first(), second(), rtol=1e-5, atol=0)
