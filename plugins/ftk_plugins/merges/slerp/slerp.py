"""The arc between two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftk.parts import MergeMethod, MergePiece, MergeWeight, weighted_sum
from ftk_plugins.merges.slerp.options import SlerpOptions

STRAIGHT = 0.9995
"""The cosine above which, either way, two weights count as lying on one line."""
LEAST = 1e-8
"""The norm below which a weight has no direction."""


class Slerp(MergeMethod):
    """``(sin((1 − t)θ)·a + sin(tθ)·b) / sin θ``, each weight a vector of all its entries, θ the angle between the two.

    ``t`` is the second model's share. Weights on one line are averaged.
    """

    fewest = most = 2

    def __init__(self, options: SlerpOptions) -> None:
        pass

    def combine(self, piece: MergePiece, weight: MergeWeight, known: Any) -> Tensor:
        return weighted_sum(piece.models, known)

    def survey(self, weight: MergeWeight) -> Sequence[float]:
        """What the two models are multiplied by."""
        t = weight.normalized()[1]
        products = torch.zeros(3, dtype=torch.float64)
        for piece in weight.pieces():
            one, other = (tensor.flatten() for tensor in piece.models)
            products += torch.stack([one @ one, other @ other, one @ other]).double().cpu()
        first, second, inner = products.tolist()
        norms = [norm if (norm := math.sqrt(square)) > LEAST else 1.0 for square in (first, second)]
        cosine = max(-1.0, min(1.0, inner / (norms[0] * norms[1])))
        if abs(cosine) > STRAIGHT:
            return 1 - t, t
        angle = math.acos(cosine)
        return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
