"""Holds the limits of `filter` to values counted by hand, and what it refuses."""

from __future__ import annotations

import pytest

from ftk.errors import RecipeError, UserError
from tests.plugins.transforms.applying import apply, texts, told

REPEATED = "a b c d e a b c d f"
"""Seven runs of four words, one of them a second time."""


@pytest.mark.parametrize(
    ("options", "given", "stays"),
    [
        ({"min_characters": 3}, ["ab", "abc", ""], ["abc"]),
        ({"max_characters": 2}, ["ab", "abc", ""], ["ab", ""]),
        ({"min_words": 2}, ["one", "one, two", "我爱", "   "], ["one, two", "我爱"]),
        ({"max_words": 1}, ["one", "one, two", "我爱"], ["one"]),
        ({"min_words": 2, "max_words": 2}, ["a", "a b", "a b c"], ["a b"]),
        ({"scripts": ["Latin"]}, ["héllo да", "да нет a", "123", "wörd"], ["héllo да", "123", "wörd"]),
        ({"scripts": ["Latin"], "min_script_share": 0.8}, ["abcd ж", "abc ж"], ["abcd ж"]),
        ({"scripts": ["Han", "Hiragana"]}, ["私はここ", "カタカナ", "abc"], ["私はここ"]),
        ({"max_symbol_share": 0.25}, ["abc.", "abc..", "a b c .", "...", "1é3!"], ["abc.", "a b c .", "1é3!"]),
        ({"max_symbol_share": 0.0}, ["abc", "a.b"], ["abc"]),
        ({"max_repetition": 0.14}, [REPEATED, "a b c d e f g", "short"], ["a b c d e f g", "short"]),
        ({"max_repetition": 1 / 7 + 1e-9}, [REPEATED, "a a a a a a"], [REPEATED]),
        ({"max_repetition": 0.0}, [REPEATED, "a b c d e"], ["a b c d e"]),
    ],
)
def test_each_limit(options: dict[str, object], given: list[str], stays: list[str]) -> None:
    assert texts("filter", given, **options) == stays


def test_a_row_is_told_under_the_first_rule_it_breaks() -> None:
    rows = [
        {"q": "short", "a": "x"},
        {"q": "long enough to stay", "a": "yes!"},
        {"q": "!!! ???", "a": "..... ..... !!"},
    ]
    after, effects = apply("filter", rows, min_words=4, max_symbol_share=0.5)
    assert after == rows[1:2]
    assert told(effects) == {"dropped with fewer than 4 words": 1, "dropped with more than 50% symbols": 1}
    assert [effect.examples for effect in effects] == [("short\nx",), ("!!! ???\n..... ..... !!",)]
    assert len(apply("filter", rows, min_words=4, columns=["a"])[0]) == 0


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["word " * (n % 9) for n in range(50)]
    whole = texts("filter", given, min_words=4)
    monkeypatch.setattr("ftk_plugins.transforms.rows.BATCH_ROWS", 7)
    assert texts("filter", given, min_words=4) == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "keeps every row: give `rules`"),
        ({"columns": ["text"]}, "keeps every row"),
        ({"min_words": 3, "max_words": 2}, "`min_words` is above `max_words`"),
        ({"min_characters": 3, "max_characters": 2}, "`min_characters` is above `max_characters`"),
        ({"scripts": ["Klingon"]}, "Unicode has no script 'Klingon'"),
        ({"scripts": ["Latin}|a"]}, "Unicode has no script"),
        ({"min_words": 1, "min_script_share": 0.9}, "`min_script_share` acts with `scripts` alone"),
        ({"rules": ["gopher"]}, "gopher_quality"),
    ],
)
def test_options_that_cannot_act_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply("filter", [{"text": "a"}], **options)
    assert message in str(caught.value)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="`filter` finds no column `txt`"):
        apply("filter", [{"text": "a"}], columns=["txt"], min_words=1)
