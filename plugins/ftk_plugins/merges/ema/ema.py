"""The exponential moving average over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from ftk.parts import MergeWeight, WeightedSum
from ftk_plugins.merges.ema.options import EmaOptions


class Ema(WeightedSum):
    """``m₁ = θ₁``, ``mᵢ = d·mᵢ₋₁ + (1 − d)·θᵢ``: the last one, as a sum."""

    shared = False
    fewest = 2

    def __init__(self, options: EmaOptions) -> None:
        self._decay = options.decay

    def factors(self, weight: MergeWeight) -> Sequence[float]:
        last = len(weight.shares) - 1
        return [(1 - self._decay if i else 1.0) * self._decay ** (last - i) for i in range(last + 1)]
