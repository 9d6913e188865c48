"""The evaluators `accuracy` and `f1` against scikit-learn, and what the report keeps beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as theirs

from ftk import UserError
from ftk_plugins.evaluators.accuracy.accuracy import Accuracy
from ftk_plugins.evaluators.accuracy.options import AccuracyOptions
from ftk_plugins.evaluators.f1.f1 import F1
from ftk_plugins.evaluators.f1.options import F1Options
from tests.plugins.evaluators.predicted import NAMES, measured, one_class, several_classes

AVERAGES = ("macro", "micro", "weighted")


def accuracy(kind: str, values: Any, right: Any, **options: Any) -> Any:
    return measured(Accuracy(AccuracyOptions(**options)), kind, values, right)["accuracy"]


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_scikit_learn_s(seed: int) -> None:
    values, right = one_class(seed)
    assert accuracy("single", values, right).value == pytest.approx(theirs.accuracy_score(right, values.argmax(1)))
    values, right = several_classes(seed)
    assert accuracy("multiple", values, right).value == pytest.approx(theirs.accuracy_score(right, values > 0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("average", AVERAGES)
def test_f1_is_scikit_learn_s(average: str, seed: int) -> None:
    for kind, (values, right) in {"single": one_class(seed), "multiple": several_classes(seed)}.items():
        guessed = values.argmax(1) if kind == "single" else (values > 0).astype(int)
        found = measured(F1(F1Options(averages=(average,))), kind, values, right)
        expected = theirs.f1_score(right, guessed, average=average, zero_division=0)
        assert list(found) == [f"f1_{average}"]
        assert found[f"f1_{average}"].value == pytest.approx(expected)


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_count_in_the_mean() -> None:
    values, right = np.eye(4)[[0, 1, 0]], np.array([0, 1, 1])
    found = measured(F1(F1Options()), "single", values, right)["f1_macro"].value
    assert found == pytest.approx(theirs.f1_score(right, [0, 1, 0], average="macro"))
    assert found == pytest.approx(2 / 3)


def test_the_report_gets_each_class_and_the_confusions_once() -> None:
    values, right = one_class(1)
    found = measured(F1(F1Options(averages=AVERAGES)), "single", values, right)
    detail = found["f1_macro"].detail
    assert detail["confusion"] == theirs.confusion_matrix(right, values.argmax(1)).tolist()
    assert detail["labels"] == list(NAMES)
    columns = theirs.precision_recall_fscore_support(right, values.argmax(1), zero_division=0)
    for number, name in enumerate(NAMES):
        expected = [column[number] for column in columns]
        assert list(detail["classes"][name].values()) == pytest.approx(expected)
    assert found["f1_micro"].detail == {}
    assert accuracy("single", values, right).detail == {"labels": list(NAMES), "confusion": detail["confusion"]}


def test_several_classes_have_no_confusions_but_each_class() -> None:
    detail = measured(F1(F1Options()), "multiple", *several_classes())["f1_macro"].detail
    assert set(detail) == {"classes"}
    assert detail["classes"]["dog"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_the_threshold_is_a_probability() -> None:
    values, right = several_classes()
    guessed = 1 / (1 + np.exp(-values)) > 0.8
    assert accuracy("multiple", values, right, threshold=0.8).value == theirs.accuracy_score(right, guessed)
    assert accuracy("multiple", values, right, threshold=0.8) != accuracy("multiple", values, right)


def test_a_threshold_where_a_row_has_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="task `toy`: `threshold` acts where a row may have several classes"):
        accuracy("single", *one_class(), threshold=0.3)


def test_the_interval_of_accuracy_is_that_of_a_share() -> None:
    random = np.random.default_rng(0)
    right = np.zeros(400, int)
    values = np.eye(4)[(random.random(400) < 0.2).astype(int)]
    metric = accuracy("single", values, right)
    low, high = metric.interval()
    half = 1.96 * np.sqrt(metric.value * (1 - metric.value) / 400)
    assert low == pytest.approx(metric.value - half, abs=0.006)
    assert high == pytest.approx(metric.value + half, abs=0.006)


def test_the_interval_of_f1_holds_what_scikit_learn_finds_on_rows_drawn_anew() -> None:
    values, right = one_class(2, rows=80)
    low, high = measured(F1(F1Options()), "single", values, right)["f1_macro"].interval()
    random = np.random.default_rng(7)
    draws = [random.integers(80, size=80) for _ in range(300)]
    scores = [theirs.f1_score(right[rows], values.argmax(1)[rows], average="macro") for rows in draws]
    assert np.percentile(scores, [2.5, 97.5]).tolist() == pytest.approx([low, high], abs=0.03)


def test_options_tell_the_metrics() -> None:
    assert F1Options(averages=("micro", "macro")).metrics() == ("f1_micro", "f1_macro")
    assert AccuracyOptions().metrics() == ("accuracy",)
