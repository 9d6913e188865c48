"""Holds `template` to what it writes, to its sandbox, and to errors that name the row and the column."""

from __future__ import annotations

import pytest

from ftk.errors import RecipeError, UserError
from tests.plugins.transforms.applying import apply, told

ROWS = [{"question": "Why?", "answers": ["because", "so"], "n": 2}, {"question": "When?", "answers": [], "n": 0}]


def test_a_column_is_written_from_others() -> None:
    template = "Q: {{ question }}{% for a in answers %}\n{{ loop.index }}. {{ a }}{% endfor %}\n"
    rows, effects = apply("template", ROWS, template=template)
    assert [row["text"] for row in rows] == ["Q: Why?\n1. because\n2. so\n", "Q: When?\n"]
    assert [list(row) for row in rows] == [["question", "answers", "n", "text"]] * 2
    assert told(effects) == {"changed with `text` written": 2}
    assert effects[0].examples == ("Q: Why?\n1. because\n2. so\n",)


def test_a_column_of_that_name_is_replaced_where_it_stands() -> None:
    rows, _ = apply("template", ROWS, template="{{ n + 1 }}", column="n")
    assert rows[0] == {"question": "Why?", "answers": ["because", "so"], "n": "3"}


def test_it_knows_no_column_but_the_rows() -> None:
    with pytest.raises(UserError) as caught:
        apply("template", ROWS, template="{{ qestion }}")
    assert str(caught.value) == "the template names `qestion`, and there is no such column\n  did you mean `question`?"
    with pytest.raises(UserError, match="names no column"):
        apply("template", ROWS, template="the same")


@pytest.mark.parametrize(
    "template",
    ["{{ question.__class__.__mro__ }}", "{{ answers.append('x') }}", "{{ answers.__init__('x') }}"],
)
def test_the_sandbox_holds(template: str) -> None:
    with pytest.raises(UserError, match=r"row 1: the template may not do that"):
        apply("template", ROWS, template=template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 4 / n }}", "row 2: the template fails: division by zero"),
        ("{{ question.body.title }}", "row 1: the template finds nothing: "),
        ("{{ question + n }}", "row 1: the template fails: "),
        ("{% include question %}", "row 1: the template fails: "),
    ],
)
def test_what_fails_is_told_with_the_row(template: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        apply("template", ROWS, template=template)
    assert message in str(caught.value)


def test_a_text_that_no_file_can_hold_is_told() -> None:
    with pytest.raises(UserError, match=r"column `text` would hold '\\ud800', which is half a character"):
        apply("template", ROWS, template="{{ '\\ud800' ~ n }}")


def test_a_template_that_is_none_is_refused_when_the_recipe_is_read() -> None:
    with pytest.raises(RecipeError, match=r"is no Jinja template, line 2: unexpected"):
        apply("template", ROWS, template="a\n{{ question }")
    with pytest.raises(RecipeError, match=r"cannot be a template: .*__globals__"):
        apply("template", ROWS, template="{{ ''.join.__globals__ ~ question }}")
