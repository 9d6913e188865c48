"""Draws of classes from what a model predicts."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_classes(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A class for each row of ``logits (rows, classes)``, drawn from its softmax in float32: ``(rows,) int64``."""
    cumulative = torch.softmax(logits, dim=-1, dtype=torch.float32).cumsum(dim=-1)
    level = torch.rand(len(logits), 1, generator=generator, device=generator.device).to(logits.device)
    drawn = torch.searchsorted(cumulative, level * cumulative[:, -1:], right=True)
    return drawn.squeeze(1).clamp(max=logits.shape[1] - 1)
