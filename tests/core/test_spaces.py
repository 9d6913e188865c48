"""The spaces of a sweep: how they are written, what they hold, what is refused."""

from __future__ import annotations

import tomllib

import pytest

from ftk import UserError
from ftk.comparing.spaces import Space, read_space, read_spaces, setting


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("a.b=[1, 2.5, 'x', true, [1, 2]]", Space("a.b", "choice", (1, 2.5, "x", True, [1, 2]))),
        ("a = log(1e-3, 1e1)", Space("a", "log", (), 1e-3, 10.0)),
        ("a=log(0.01, 1, 3)", Space("a", "log", (0.01, 0.1, 1), 0.01, 1)),
        ("a=uniform(0,1)", Space("a", "uniform", (), 0, 1)),
        ("a=uniform(0, 1, 5)", Space("a", "uniform", (0, 0.25, 0.5, 0.75, 1), 0, 1)),
        ("a=int(1, 16)", Space("a", "int", (), 1, 16, 1)),
        ("a=int(4, 16, 4)", Space("a", "int", (), 4, 16, 4)),
    ],
)
def test_a_space_is_read(text: str, space: Space) -> None:
    assert read_space(text) == space


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "has no `=`"),
        ("a b=[1]", "is no path"),
        ("a=1", "is no space"),
        ("a=[]", "is no space"),
        ("a=[1, 1]", "stands twice"),
        ("a=[2020-01-01]", "no option takes"),
        ("a=[nan]", "no option takes"),
        ("a=log(0, 1)", "begins above 0"),
        ("a=log(1, 0.1)", "must be below"),
        ("a=log(1)", "takes two numbers"),
        ("a=uniform(0, 1, 2, 3)", "takes two numbers"),
        ("a=uniform(0, 1, 1.5)", "whole number"),
        ("a=uniform(0, 1, 1)", "two points at least"),
        ("a=uniform(0, 1, 1e9)", "10,000 points are the most"),
        ("a=int(1, 2.5)", "whole numbers"),
        ("a=normal(0, 1)", "knows no `normal`"),
        ("a=log('x', 1)", "are no numbers"),
        ("a=log(true, 2)", "are no numbers"),
        ("a=log(1, inf)", "are no numbers"),
        ("a=log(1, 2", "is no space"),
        ("a=log(])", "are no numbers"),
    ],
)
def test_what_is_no_space_is_refused_with_how_one_is_written(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read_space(text)
    assert "path" in reason or "log(1e-3, 10)" in caught.value.hint


def test_a_key_stands_once_and_some_key_must_stand() -> None:
    with pytest.raises(UserError, match="stands twice"):
        read_spaces(["a.b=[1, 2]", "a . b=[3]"])
    with pytest.raises(UserError, match="something to search"):
        read_spaces([])


def test_values_come_back_as_the_recipe_reads_them() -> None:
    for value in (1, 2.5, 1e-300, True, "x\"'\n", [1, "y"], {"use": "linear", "warmup.x": [False]}):
        text = setting(Space("a", "choice"), value)
        assert tomllib.loads(text.replace("a=", "a = ", 1)) == {"a": value}
