"""Regression errors: how far predicted numbers are from the right ones, and how they go along with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import nn

from ftk.parts import Context, Evaluator, Metric, Resampling, Task, predictions
from ftk_plugins.evaluators.regression_error.options import RegressionErrorOptions

Values = np.ndarray
"""``(rows, numbers) float64``."""


class RegressionError(Evaluator):
    """The definitions of scikit-learn and scipy; where a row has several numbers, the mean over these."""

    def __init__(self, options: RegressionErrorOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure what ``measures`` asks for; what is not defined, as correlation with a constant, is not a number."""
        found = predictions(task, model, ctx)
        guessed, right = found.values.double().numpy(), found.references.double().numpy()
        return [
            Metric(
                name, MEASURES[name](guessed, right), name not in ("mae", "rmse"),
                resampling=Resampling(len(right), partial(_of_rows, MEASURES[name], guessed, right)),
            )
            for name in self.options.measures
        ]  # fmt: skip


def _of_rows(measure: Callable[[Values, Values], float], guessed: Values, right: Values, rows: np.ndarray) -> float:
    return measure(guessed[rows], right[rows])


def mean_absolute_error(guessed: Values, right: Values) -> float:
    """``mean |f − y|``."""
    return float(np.abs(guessed - right).mean())


def root_mean_square_error(guessed: Values, right: Values) -> float:
    """``√ mean (f − y)²`` of each number, and their mean."""
    return float(np.sqrt(np.square(guessed - right).mean(0)).mean())


def explained(guessed: Values, right: Values) -> float:
    """``1 − Σ (f − y)² / Σ (y − mean y)²``; not a number where the right numbers are all the same."""
    error, spread = np.square(guessed - right).sum(0), np.square(right - right.mean(0)).sum(0)
    return float((1 - _quotient(error, spread)).mean())


def correlation(guessed: Values, right: Values) -> float:
    """Pearson's ``cov(f, y) / (σ(f) · σ(y))``; not a number where one of them is all the same."""
    one, other = guessed - guessed.mean(0), right - right.mean(0)
    return float(_quotient((one * other).sum(0), np.sqrt(np.square(one).sum(0) * np.square(other).sum(0))).mean())


def rank_correlation(guessed: Values, right: Values) -> float:
    """Spearman's: :func:`correlation` of ranks, equal numbers sharing the mean of theirs."""
    return correlation(_ranks(guessed), _ranks(right))


MEASURES: Mapping[str, Callable[[Values, Values], float]] = {
    "mae": mean_absolute_error,
    "rmse": root_mean_square_error,
    "r2": explained,
    "pearson": correlation,
    "spearman": rank_correlation,
}


def _ranks(values: Values) -> Values:
    ranked = np.empty_like(values)
    for column in range(values.shape[1]):
        _, place, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranked[:, column] = (ends - (counts - 1) / 2)[place]
    return ranked


def _quotient(part: Values, whole: Values) -> Values:
    quotient: Values = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return quotient
