"""Task vectors added to a base."""

from __future__ import annotations

from collections.abc import Sequence

from ftk.parts import MergeWeight, WeightedSum
from ftk_plugins.merges.task_arithmetic.options import TaskArithmeticOptions


class TaskArithmetic(WeightedSum):
    """``θ_base + Σ wᵢ·(θᵢ − θ_base)``; a negative weight is a task's negation."""

    vectors = True

    def __init__(self, options: TaskArithmeticOptions) -> None:
        pass

    def factors(self, weight: MergeWeight) -> Sequence[float]:
        return weight.shares
