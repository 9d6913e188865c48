"""The evaluator `regression_error` against scikit-learn and scipy."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as theirs

from ftk.parts import Metric
from ftk_plugins.evaluators.regression_error.options import Measure, RegressionErrorOptions
from ftk_plugins.evaluators.regression_error.regression_error import RegressionError
from tests.plugins.evaluators.predicted import measured

ALL = get_args(Measure)


def errors(guessed: Any, right: Any, *measures: str) -> dict[str, Metric]:
    return measured(RegressionError(RegressionErrorOptions(measures=measures or ALL)), "scalars", guessed, right)


def numbers(seed: int, numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounded, so that some ranks are shared."""
    random = np.random.default_rng(seed)
    right = random.normal(size=(40, numbers)).round(1) * [1.0, 3.0, 0.5][:numbers]
    return (right + random.normal(size=right.shape)).round(1), right


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_they_are_scikit_learn_s_and_scipy_s(seed: int, count: int) -> None:
    guessed, right = numbers(seed, count)
    found = {name: metric.value for name, metric in errors(guessed, right).items()}
    expected = {
        "mae": theirs.mean_absolute_error(right, guessed),
        "rmse": theirs.root_mean_squared_error(right, guessed),
        "r2": theirs.r2_score(right, guessed),
        "pearson": np.mean([stats.pearsonr(guessed[:, n], right[:, n])[0] for n in range(count)]),
        "spearman": np.mean([stats.spearmanr(guessed[:, n], right[:, n])[0] for n in range(count)]),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_less_is_better_of_errors_alone() -> None:
    found = errors(*numbers(0, 1))
    assert {name for name, metric in found.items() if not metric.higher_is_better} == {"mae", "rmse"}


def test_what_is_not_defined_is_not_a_number() -> None:
    found = errors([[1.0], [2.0]], [[3.0], [3.0]])
    assert {name for name, metric in found.items() if math.isnan(metric.value)} == {"r2", "pearson", "spearman"}
    assert found["r2"].interval() is None


def test_the_interval_of_the_mean_error_is_that_of_a_mean() -> None:
    guessed, right = numbers(1, 1)
    found = errors(guessed, right, "mae")["mae"]
    low, high = found.interval() or (0, 0)
    half = 1.96 * np.abs(guessed - right).std() / math.sqrt(len(right))
    assert [low, high] == pytest.approx([found.value - half, found.value + half], abs=0.2 * half)


def test_options_tell_the_metrics() -> None:
    assert RegressionErrorOptions().metrics() == ("rmse", "mae", "r2")
