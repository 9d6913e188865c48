"""F1: the harmonic mean of precision and recall of each class, brought into one number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from ftk.parts import Context, Evaluator, Metric, Resampling, Task
from ftk_plugins.evaluators.f1.options import F1Options
from ftk_plugins.evaluators.outcomes import Outcomes, outcomes


class F1(Evaluator):
    """``2·met / (said + true)`` of each class: how often it was rightly predicted, was predicted, and is right.

    The definitions are those of scikit-learn's ``f1_score`` with ``zero_division=0``: where a row has one class, those
    that neither occur nor are predicted do not count in the macro average.
    """

    def __init__(self, options: F1Options) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure what ``averages`` asks for; the first has each class and the confusion matrix beside it."""
        found = outcomes(task, model, ctx, self.options.threshold)
        detail = {"classes": _classes(found), **found.confusion()}
        metrics = []
        for name in self.options.averages:
            average = AVERAGES[name]
            resampling = Resampling(len(found.right), partial(_of_rows, found, average))
            metrics.append(Metric(f"f1_{name}", average(found), True, detail, resampling))
            detail = {}
        return metrics


def _of_rows(found: Outcomes, average: Callable[[Outcomes], float], rows: np.ndarray) -> float:
    return average(found.among(rows))


def _macro(found: Outcomes) -> float:
    met, said, true = found.counts()
    each = _shares(2 * met, said + true)
    return float(each.mean() if found.right.ndim == 2 else each[said + true > 0].mean())


def _micro(found: Outcomes) -> float:
    met, said, true = (counts.sum() for counts in found.counts())
    return float(_shares(2 * met, said + true))


def _weighted(found: Outcomes) -> float:
    met, said, true = found.counts()
    return float(_shares((_shares(2 * met, said + true) * true).sum(), true.sum()))


AVERAGES: dict[str, Callable[[Outcomes], float]] = {"macro": _macro, "micro": _micro, "weighted": _weighted}


def _classes(found: Outcomes) -> dict[str, Any]:
    """Precision, recall, F1 and how often it is right, by class."""
    met, said, true = found.counts()
    columns = (_shares(met, said), _shares(met, true), _shares(2 * met, said + true), true)
    names = ("precision", "recall", "f1", "support")
    return {
        label: dict(zip(names, row, strict=True))
        for label, row in zip(found.labels, zip(*(column.tolist() for column in columns), strict=True), strict=True)
    }


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients; 0 where there is nothing to divide by."""
    shares: np.ndarray = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
    return shares
