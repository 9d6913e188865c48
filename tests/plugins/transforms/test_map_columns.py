"""Holds `map_columns` to what it does with columns and to what it refuses."""

from __future__ import annotations

import pytest

from ftk.errors import RecipeError, UserError
from tests.plugins.transforms.applying import apply

ROWS = [{"q": f"q{n}", "a": f"a{n}", "id": n} for n in range(3)]


def mapped(**options: object) -> list[dict[str, object]]:
    return apply("map_columns", ROWS, **options)[0]


def test_columns_get_new_names() -> None:
    assert mapped(rename={"instruction": "q", "output": "a"})[1] == {"instruction": "q1", "output": "a1", "id": 1}
    assert mapped(rename={"q": "a", "a": "q"})[1] == {"a": "q1", "q": "a1", "id": 1}, "two may change places"


def test_columns_are_kept_in_the_order_asked_for_and_dropped() -> None:
    assert [list(row) for row in mapped(keep=["id", "q"])] == [["id", "q"]] * 3
    assert mapped(drop=["id", "a"]) == [{"q": f"q{n}"} for n in range(3)]
    assert mapped(rename={"text": "q"}, keep=["text"])[0] == {"text": "q0"}, "by the new names"


@pytest.mark.parametrize("value", ["", "en", 7, -0.5, True, False])
def test_constants_have_one_value_and_its_type(value: object) -> None:
    rows = mapped(constants={"c": value})
    assert [(row["c"], type(row["c"])) for row in rows] == [(value, type(value))] * 3
    assert mapped(constants={"a": value})[2] == {"q": "q2", "a": value, "id": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": {"x": "ansver"}}, "`rename` finds no column `ansver`"),
        ({"rename": {"a": "q"}}, "`rename` makes a second column `a`"),
        ({"keep": ["q", "answer"]}, "`map_columns` finds no column `answer`"),
        ({"drop": ["q", "a", "id"]}, "`drop` leaves no column"),
        ({"drop": ["idd"]}, "finds no column `idd`\n  did you mean `id`"),
    ],
)
def test_columns_that_are_not_there_are_named(options, message) -> None:
    with pytest.raises(UserError) as caught:
        mapped(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "asks for nothing"),
        ({"keep": ["q"], "drop": ["a"]}, "exclude each other"),
        ({"rename": {"x": "q", "y": "q"}}, "gives one column two names"),
        ({"rename": {"x": "q"}, "constants": {"x": 1}}, "both renamed and a constant"),
        ({"constants": {"x": 1}, "keep": ["q"]}, "is a constant and is dropped again"),
        ({"constants": {"x": [1]}}, "transform.constants"),
        ({"constants": {"x": 2**63}}, "transform.constants"),
        ({"keep": ["q", "q"]}, "`keep` names a column twice"),
        ({"keep": []}, "transform.keep"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message) -> None:
    with pytest.raises(RecipeError) as caught:
        mapped(**options)
    assert message in str(caught.value)
