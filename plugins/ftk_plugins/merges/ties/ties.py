"""Trim, elect sign, disjoint mean."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ftk.parts import MergeMethod, MergePiece, MergeWeight
from ftk_plugins.merges.electing import agreed_mean
from ftk_plugins.merges.ties.options import TiesOptions
from ftk_plugins.merges.trimming import trims_of


class Ties(MergeMethod):
    """Section 4 of the paper, with each weight trimmed by itself and the signs elected by the weighed sum.

    Of entries of one size the first are kept.
    """

    vectors = True

    def __init__(self, options: TiesOptions) -> None:
        self._options = options

    def survey(self, weight: MergeWeight) -> Any:
        return trims_of(weight, self._options.density)

    def combine(self, piece: MergePiece, weight: MergeWeight, known: Any) -> Tensor:
        for tensor, trim in zip(piece.models, known, strict=True):
            trim.apply_(tensor)
        return agreed_mean(piece.models, weight.shares).mul_(self._options.scale)
