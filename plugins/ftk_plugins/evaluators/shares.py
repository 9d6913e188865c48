"""A share of rows as a metric: what accuracies of every kind are, with their interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftk.parts import Context, Metric, Resampling, gathered


def share(name: str, hits: np.ndarray, detail: Mapping[str, Any] | None = None) -> Metric:
    """The share of rows that are right, of ``hits (rows,) bool`` in the order of the rows."""
    resampling = Resampling(len(hits), lambda rows: float(hits[rows].mean()))
    return Metric(name, float(hits.mean()), True, detail or {}, resampling)


def share_of_all(name: str, own: Mapping[int, bool], ctx: Context) -> Metric:
    """:func:`share` of all processes' rows; each gives its own by their numbers."""
    hits = sorted(gathered(list(own.items()), ctx))
    return share(name, np.array([hit for _, hit in hits]))
