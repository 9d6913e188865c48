"""Where `classification` has its labels from: the data set's names, the training rows, or the options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List
from sklearn.utils.class_weight import compute_class_weight

from ftk import UserError
from ftk_plugins.objectives.classification.classification import Classification
from ftk_plugins.objectives.classification.options import ClassificationOptions
from ftk_plugins.objectives.labels import Labels
from tests.plugins.objectives.classes import ROWS

BALANCED = {"class_weights": "balanced"}


def completed(rows: Dataset | list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    rows = rows if isinstance(rows, Dataset) else Dataset.from_list(rows)
    return dict(Classification(ClassificationOptions(**options)).completed(rows))


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": "a", "label": label} for label in labels]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([10, 2, 10], ("2", "10")),
        ([-1, 1], ("-1", "1")),
        ([True, False], ("false", "true")),
        ([1.0, 0.0, None], ("0", "1")),
    ],
)
def test_the_training_rows_labels_are_sorted(labels: list[Any], names: tuple[str, ...]) -> None:
    assert completed(labelled(*labels)) == {"labels": names, "class_weights": None}


def test_lists_of_labels_are_looked_into() -> None:
    assert completed(ROWS, kind="multiple", label="tags")["labels"] == ("film", "long", "short")


def test_names_that_the_data_set_declares_keep_their_order() -> None:
    names = ClassLabel(names=["z", "y", "x"])
    plain = Dataset.from_dict({"label": [0, 1]}, Features({"label": names}))
    assert completed(plain)["labels"] == ("z", "y", "x")
    lists = Dataset.from_dict({"label": [[2, 0]]}, Features({"label": List(names)}))
    assert completed(lists, kind="multiple")["labels"] == ("z", "y", "x")


def test_labels_of_the_options_keep_their_order_and_ask_no_row() -> None:
    assert completed(labelled("a"), labels=["b", "a", "c"]) == {}


@pytest.mark.parametrize(
    ("names", "value", "index"),
    [
        (("no", "yes"), "yes", 1),
        (("no", "yes"), 1, 1),
        (("no", "yes"), 1.0, 1),
        (("2", "1"), 1, 1),
        (("false", "true"), True, 1),
        (("-1", "1"), -1, 0),
    ],
)
def test_a_row_has_a_label_or_its_number(names: tuple[str, ...], value: Any, index: int) -> None:
    assert Labels(names).index(value) == index


@pytest.mark.parametrize(
    ("names", "value", "reason"),
    [
        (("no", "yes"), 2, "the label `2` is none of"),
        (("no", "yes"), -1, "the label `-1` is none of"),
        (("no", "yes"), "1", "the label `1` is none of"),
        (("2", "3"), 1, "the label `1` is none of"),
        (("no", "yes"), "Yes", "the label `Yes` is none of"),
        (("no", "yes"), 0.5, "0.5 is no label"),
        (("no", "yes"), " ", "is no label"),
        (("no", "yes"), {"a": 1}, "is no label"),
    ],
)
def test_what_is_none_of_the_labels_is_refused(names: tuple[str, ...], value: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Labels(names).index(value)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = ["a"] * 5 + ["b"] * 2 + ["c"]
    found = completed(labelled(*labels), class_weights="balanced")["class_weights"]
    theirs = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    assert list(found.values()) == pytest.approx(theirs.tolist())
    assert sum(found[label] for label in labels) / len(labels) == pytest.approx(1.0)


def test_balanced_weights_of_several_labels_are_rows_without_over_rows_with() -> None:
    found = completed(ROWS, kind="multiple", label="tags", class_weights="balanced")["class_weights"]
    assert found == {"film": pytest.approx(2 / 3), "long": 4.0, "short": pytest.approx(3 / 2)}


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([{"text": "a"}], {}, "there is no column `label`; there are text"),
        (labelled("a", "a"), {}, "holds the label `a` alone"),
        (labelled("a", "b"), {"class_weights": {"c": 2.0}}, "names c; the labels are a, b"),
        (labelled("a", "b"), {**BALANCED, "labels": ["a", "b", "c"]}, "no training row has the label `c`"),
        (labelled(["a"], ["a", "b"]), {**BALANCED, "kind": "multiple"}, "every training row has the label `a`"),
        (labelled([], []), {"kind": "multiple"}, "no label"),
    ],
)  # fmt: skip
def test_rows_that_do_not_tell_are_refused(rows: list[dict[str, Any]], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        completed(rows, **options)
