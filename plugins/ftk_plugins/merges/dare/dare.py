"""Drop at random and rescale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftk.parts import MergeMethod, MergePiece, MergeWeight, weighted_sum
from ftk_plugins.merges.dare.options import DareOptions
from ftk_plugins.merges.electing import agreed_mean


class Dare(MergeMethod):
    """Equations 1 to 3 of the paper; what is drawn follows from the seed, the weight, the model and the rows alone."""

    vectors = True

    def __init__(self, options: DareOptions) -> None:
        self._options = options

    def combine(self, piece: MergePiece, weight: MergeWeight, known: Any) -> Tensor:
        density = self._options.density
        for number, tensor in enumerate(piece.models):
            kept = torch.empty(tensor.shape)
            kept.bernoulli_(density, generator=weight.generator("dare", number, piece.start))
            tensor.mul_(kept.to(tensor.device)).div_(density)
        if self._options.then == "ties":
            return agreed_mean(piece.models, weight.shares)
        return weighted_sum(piece.models, weight.shares)
