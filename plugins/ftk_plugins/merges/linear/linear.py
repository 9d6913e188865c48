"""The weighted average of several models."""

from __future__ import annotations

from collections.abc import Sequence

from ftk.parts import MergeWeight, WeightedSum
from ftk_plugins.merges.linear.options import LinearOptions


class Linear(WeightedSum):
    """``Σ wᵢ·θᵢ / Σ wᵢ``. Of the two ends of a stage it is the line between them (WiSE-FT)."""

    def __init__(self, options: LinearOptions) -> None:
        pass

    def factors(self, weight: MergeWeight) -> Sequence[float]:
        return weight.normalized()
