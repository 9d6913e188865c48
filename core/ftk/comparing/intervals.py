"""Intervals of 95%: over rows by the bootstrap, over seeds by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Interval = tuple[float, float]

T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5% quantile of Student's t for 1 to 30 degrees of freedom."""
NORMAL = 1.959964
"""That of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A number with its intervals.

    Attributes:
        value: the number.
        over_rows: where it lies when test rows are drawn anew; None: the metric has no draws.
        over_seeds: where the mean over seeds lies; None: there is one seed.
    """

    value: float
    over_rows: Interval | None
    over_seeds: Interval | None

    @property
    def interval(self) -> Interval | None:
        """That over seeds where there are several, else that over rows."""
        return self.over_seeds or self.over_rows

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "value": self.value,
            "over_rows": None if self.over_rows is None else list(self.over_rows),
            "over_seeds": None if self.over_seeds is None else list(self.over_seeds),
        }


def over_rows(draws: np.ndarray) -> Interval | None:
    """The percentile bootstrap: where 95% of the draws lie; None where fewer than half have a value."""
    finite = draws[np.isfinite(draws)]
    if 2 * len(finite) < len(draws) or not len(finite):
        return None
    low, high = np.percentile(finite, [2.5, 97.5]).tolist()
    return low, high


def over_seeds(values: Sequence[float]) -> Interval | None:
    """Mean ± t · s / √n, with the sample's standard deviation s; None for a single value."""
    count = len(values)
    if count < 2:
        return None
    middle = float(np.mean(values))
    more = NORMAL + (NORMAL**3 + NORMAL) / (4 * (count - 1))  # the first term of its expansion in 1 / (count - 1)
    half = (T[count - 2] if count - 2 < len(T) else more) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return middle - half, middle + half
