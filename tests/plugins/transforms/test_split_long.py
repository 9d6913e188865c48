"""Holds `split_long` to its windows: each at most so long, overlapping by so much, and all of the text in them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ftk.errors import RecipeError, UserError
from tests.plugins.transforms.applying import apply, texts, told


@pytest.mark.parametrize("length", [1, 5, 8, 9, 13, 14, 50])
@pytest.mark.parametrize(("size", "overlap"), [(8, 3), (8, 0), (8, 7), (5, 1)])
@pytest.mark.parametrize("unit", ["words", "characters"])
def test_the_windows_give_the_text_back(length: int, size: int, overlap: int, unit: str) -> None:
    units = [f"w{n}," for n in range(length)] if unit == "words" else [chr(0x61 + n % 26) for n in range(length)]
    text = ("  " if unit == "words" else "").join(units)
    windows = texts("split_long", [text], size=size, overlap=overlap, unit=unit)
    cut = [window.split() if unit == "words" else list(window) for window in windows]
    assert all(0 < len(window) <= size for window in cut)
    assert all(len(window) == size for window in cut[:-1])
    assert cut[0] + [word for window in cut[1:] for word in window[overlap:]] == units
    assert all(before[len(before) - overlap :] == after[:overlap] for before, after in pairwise(cut))
    assert all(len(window) > overlap for window in cut[1:]), "no window without something new"
    assert all(window in text for window in windows), "what stands between words stays"


def test_texts_that_are_not_longer_stay_as_they_are() -> None:
    rows = [{"text": " one  two\n"}, {"text": None}, {"text": ""}]
    assert apply("split_long", rows, size=2, overlap=0) == (rows, ())


def test_other_columns_are_repeated_and_all_is_told() -> None:
    rows = [{"text": "a b c d e", "n": 1, "tags": ["x"]}, {"text": "f", "n": 2, "tags": []}]
    after, effects = apply("split_long", rows, size=2, overlap=0)
    assert [(row["text"], row["n"], row["tags"]) for row in after] == [
        ("a b", 1, ["x"]), ("c d", 1, ["x"]), ("e", 1, ["x"]), ("f", 2, []),
    ]  # fmt: skip
    assert told(effects) == {"changed longer than 2 words": 1, "made further windows of longer rows": 2}


@pytest.mark.parametrize(("size", "overlap"), [(3, 0), (3, 2), (9, 1)])
def test_words_are_cut_with_their_tags(size: int, overlap: int) -> None:
    words, tags = [f"w{n}" for n in range(8)], list(range(8))
    rows = [{"tokens": words, "tags": tags, "n": 1}, {"tokens": [], "tags": [], "n": 2}]
    after, _ = apply("split_long", rows, column="tokens", beside=["tags"], size=size, overlap=overlap)
    *cut, last = after
    assert last == rows[1]
    assert all(row["tokens"] == [f"w{n}" for n in row["tags"]] and row["n"] == 1 for row in cut)
    assert cut[0]["tags"] + [tag for row in cut[1:] for tag in row["tags"][overlap:]] == tags
    assert [len(row["tags"]) for row in cut[:-1]] == [size] * (len(cut) - 1)


def test_defaults_and_another_column() -> None:
    body = " ".join(str(n) for n in range(201))
    (first, second), _ = apply("split_long", [{"body": body}], column="body")
    assert first["body"].split() == [str(n) for n in range(200)]
    assert second["body"].split() == [str(n) for n in range(150, 201)]


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    assert texts("split_long", ["我们今天去。"], size=3, overlap=1) == ["我们今", "今天去", "去。"]


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        ([{"body": "a"}], {}, UserError, "`split_long` finds no column `text`"),
        ([{"text": 3}], {}, UserError, "works on one text a row, and column `text` holds int64"),
        ([{"text": ["a"]}], {"unit": "characters"}, UserError, "holds lists of words, which have no characters"),
        ([{"text": "a", "tags": [1]}], {"beside": ["tags"]}, UserError, "and column `text` holds string"),
        ([{"text": ["a"], "tags": 1}], {"beside": ["tags"]}, UserError, "and column `tags` holds int64"),
        (
            [{"text": ["a"], "tags": [1]}, {"text": ["a", "b"], "tags": [1]}],
            {"beside": ["tags"]},
            UserError,
            "row 2: column `text` holds 2 words, column `tags` 1",
        ),
        ([{"text": "a"}], {"size": 50}, RecipeError, "`overlap` must be below `size`, 50"),
    ],
)
def test_what_it_cannot_cut_is_told(rows, options, error, message) -> None:
    with pytest.raises(error) as caught:
        apply("split_long", rows, **options)
    assert message in str(caught.value)
