"""The average of models, weighed entry by entry by what each entry matters to each model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftk.parts import MergeMethod, MergePiece, MergeWeight
from ftk_plugins.merges.fisher.options import FisherOptions


class FisherWeighted(MergeMethod):
    """``Σ wᵢ·Fᵢ·θᵢ / Σ wᵢ·Fᵢ`` (equation 4 of the paper), with ``Fᵢ`` no less than ``floor``."""

    importances = True

    def __init__(self, options: FisherOptions) -> None:
        self._floor = options.floor

    def combine(self, piece: MergePiece, weight: MergeWeight, known: Any) -> Tensor:
        total, divisor = torch.zeros_like(piece.models[0]), torch.zeros_like(piece.models[0])
        for tensor, importance, share in zip(piece.models, piece.importances, weight.normalized(), strict=True):
            importance.clamp_(min=self._floor).mul_(share)
            divisor.add_(importance)
            total.addcmul_(tensor, importance)
        return total.div_(divisor)
