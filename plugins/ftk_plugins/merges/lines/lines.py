"""Task vectors scaled by how deep in the model a weight stands."""

from __future__ import annotations

from collections.abc import Sequence

from ftk.parts import MergeWeight, WeightedSum
from ftk_plugins.merges.lines.options import LinesOptions


class Lines(WeightedSum):
    """``θ_base + λ(l)·Σ wᵢ·(θᵢ − θ_base)`` with ``λ`` rising evenly from ``first`` to 1, equation 2 of the paper.

    What stands before the blocks counts as the first, what stands behind them as the last.
    """

    vectors = True

    def __init__(self, options: LinesOptions) -> None:
        self._first = options.first

    def factors(self, weight: MergeWeight) -> Sequence[float]:
        scale = self._first + (1 - self._first) * weight.depth
        return [scale * share for share in weight.shares]
