"""Holds `few_shot` to its counts, its draw and its refusals."""

from __future__ import annotations

from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftk.errors import UserError
from ftk.testing import Subject
from tests.plugins.transforms.applying import apply, told

ROWS = [{"text": str(n), "label": "abc"[n % 3 if n % 5 else 0]} for n in range(60)]
COUNTS = Counter(row["label"] for row in ROWS)


def drawn(**options: object) -> list[str]:
    return [row["text"] for row in apply("few_shot", ROWS, **options)[0]]


def test_each_class_has_so_many_rows_in_their_order() -> None:
    rows, effects = apply("few_shot", ROWS, per_class=4)
    assert Counter(row["label"] for row in rows) == {"a": 4, "b": 4, "c": 4}
    assert [int(row["text"]) for row in rows] == sorted(int(row["text"]) for row in rows)
    assert told(effects) == {f"dropped of class `{name}`, not drawn": n - 4 for name, n in COUNTS.items()}
    assert len(drawn()) == 48, "16 of each by default"


def test_the_seed_decides_and_each_row_is_as_likely_as_another() -> None:
    assert drawn(per_class=4) == drawn(per_class=4, seed=0) != drawn(per_class=4, seed=1)
    found = Counter(text for seed in range(100) for text in drawn(per_class=4, seed=seed))
    of_a = [found[row["text"]] for row in ROWS if row["label"] == "a"]
    expected, freedom = sum(of_a) / len(of_a), len(of_a) - 1
    chi_square = sum((count - expected) ** 2 / expected for count in of_a)
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def test_rows_added_to_the_data_leave_most_of_the_draw() -> None:
    before = {row["text"] for row in apply("few_shot", ROWS, per_class=8)[0]}
    more = [*ROWS, *({"text": f"new {n}", "label": "a"} for n in range(3))]
    after = {row["text"] for row in apply("few_shot", more, per_class=8)[0]}
    assert len(before - after) <= 3


def test_a_class_with_too_few_rows() -> None:
    rows = [*ROWS, {"text": "rare", "label": "d"}]
    with pytest.raises(UserError, match="class `d` of column `label` has 1 rows, and `per_class` asks for 4"):
        apply("few_shot", rows, per_class=4)
    kept, effects = apply("few_shot", rows, per_class=4, scarce="keep")
    assert Counter(row["label"] for row in kept)["d"] == 1
    assert "dropped of class `d`, not drawn" not in told(effects)
    dropped, effects = apply("few_shot", rows, per_class=4, scarce="drop")
    assert Counter(row["label"] for row in dropped) == {"a": 4, "b": 4, "c": 4}
    assert told(effects)["dropped of class `d`, which has too few"] == 1


def test_classes_of_numbers_and_of_named_labels() -> None:
    numbers = [{"n": index % 2, "label": None} for index in range(6)]
    rows, effects = apply("few_shot", [*numbers, {"n": None, "label": None}], column="n", per_class=2)
    assert Counter(row["n"] for row in rows) == {0: 2, 1: 2}
    assert told(effects)["dropped without a class"] == 1
    features = Features({"label": ClassLabel(names=["neg", "pos"]), "text": Value("string")})
    named = Dataset.from_list([{"label": index % 2, "text": ""} for index in range(6)], features=features)
    transform = Subject("transform", "few_shot", {"per_class": 2}).build()
    assert transform.apply(named).features == features
    assert set(told(transform.effects())) == {"dropped of class `neg`, not drawn", "dropped of class `pos`, not drawn"}


def test_it_is_about_what_is_learned_alone() -> None:
    assert Subject("transform", "few_shot").build().training_only()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"lable": "a"}], "`few_shot` finds no column `label`\n  did you mean `lable`"),
        ([{"label": ["a", "b"]}], "column `label` holds list values, which are no classes"),
        ([{"label": 0.5}], "column `label` holds float values"),
    ],
)
def test_columns_without_classes_are_named(rows, message) -> None:
    with pytest.raises(UserError) as caught:
        apply("few_shot", rows)
    assert message in str(caught.value)
