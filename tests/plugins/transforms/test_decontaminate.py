"""Holds `decontaminate` to brute force over words, and to what each option lets pass."""

from __future__ import annotations

import random
from typing import Any

import pytest
from datasets import Dataset

from ftk.errors import RecipeError, UserError
from ftk.testing import Subject
from tests.plugins.transforms.applying import told


def cleaned(train: list[Any], *tests: list[str], **options: Any) -> tuple[list[Any], dict[str, int]]:
    transform = Subject("transform", "decontaminate", options).build()
    for number, texts in enumerate(tests):
        transform.see_tests(f"data.test{number}", iter(texts))
    rows = [row if isinstance(row, dict) else {"text": row} for row in train]
    after = transform.apply(Dataset.from_list(rows)).to_list()
    return [row["text"] if set(row) == {"text"} else row for row in after], told(transform.effects())


def words(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


@pytest.fixture(scope="module")
def made() -> tuple[list[str], list[str]]:
    """Training and test texts of which many share runs of 3 to 20 words."""
    draw = random.Random(1)
    pool = [f"w{n}" for n in range(2000)]
    tests = [" ".join(draw.choices(pool, k=draw.randint(5, 40))) for _ in range(40)]
    train = []
    for _ in range(120):
        text = draw.choices(pool, k=30)
        given = draw.choice(tests).split()
        length = min(draw.randint(0, 20), len(given))
        start = draw.randint(0, len(given) - length)
        text[10:10] = given[start : start + length]
        train.append(" ".join(text))
    return train, tests


@pytest.mark.parametrize(("ngram", "shortest"), [(13, 8), (5, 5), (20, 6)])
def test_what_is_dropped_is_what_brute_force_finds(made, ngram: int, shortest: int) -> None:
    train, tests = made
    runs = set()
    for text in tests:
        known = text.split()
        size = min(ngram, len(known))
        if size >= shortest:
            runs |= {f" {' '.join(known[n : n + size])} " for n in range(len(known) - size + 1)}
    expected = [text for text in train if not any(run in f" {text} " for run in runs)]
    after, effects = cleaned(train, tests, ngram=ngram, shortest=shortest, common=1000)
    assert after == expected
    assert 0 < len(expected) < len(train)
    assert sum(effects.values()) == len(train) - len(expected)


def test_capitals_and_punctuation_do_not_matter() -> None:
    test = words(*range(13))
    leaked = words(*range(13)).upper().replace(" ", ", ") + "!"
    assert cleaned([f"so {leaked}", words(*range(12))], [test])[0] == [words(*range(12))]


def test_the_place_is_told_with_the_words() -> None:
    transform = Subject("transform", "decontaminate", {}).build()
    transform.see_tests("data.test", [words(*range(40, 60))])
    transform.see_tests("data.probes.hard", [words(*range(60, 68)), words(*range(40, 60))])
    rows = [{"text": words(1, *range(60, 68))}, {"text": words(*range(45, 60))}, {"text": "fine"}]
    assert transform.apply(Dataset.from_list(rows)).to_list() == [{"text": "fine"}]
    assert [(effect.reason, effect.examples) for effect in transform.effects()] == [
        ("that share 8 words with data.probes.hard", (words(*range(60, 68)),)),
        ("that share 13 words with data.test", (words(*range(45, 58)),)),
    ]


def test_short_test_texts_are_looked_for_as_a_whole_or_not_at_all() -> None:
    test = words(*range(8))
    assert cleaned([f"a {test} b", words(*range(7)), "c"], [test])[0] == [words(*range(7)), "c"]
    seven = words(*range(7))
    assert cleaned([f"a {seven} b"], [seven, words(*range(50, 70))])[0] == [f"a {seven} b"]
    assert cleaned([f"a {seven} b", "c"], [seven], shortest=7)[0] == ["c"]
    with pytest.raises(UserError, match="no text of a test set has 8 words"):
        cleaned(["a"], [seven])


def test_phrases_of_many_training_rows_are_no_leak() -> None:
    phrase = words(*range(13))
    rows = [f"{phrase} x{n}" for n in range(5)]
    assert cleaned([*rows, "other"], [f"{phrase} y"])[0] == ["other"]
    assert cleaned([*rows, "other"], [f"{phrase} y"], common=4)[0] == [*rows, "other"]
    leaked = words(*range(20, 40))
    both = f"{phrase} {leaked}"
    assert cleaned([*rows, both], [f"{phrase} y", leaked], common=4)[0] == rows, "what is no phrase is still a leak"


def test_long_rows_may_share_a_little() -> None:
    leaked = words(*range(20))
    half, tenth = f"{leaked} {words(*range(100, 120))}", f"{leaked} {words(*range(200, 380))}"
    assert cleaned([half, tenth, "x"], [leaked])[0] == ["x"]
    assert cleaned([half, tenth, "x"], [leaked], share=0.1)[0] == [tenth, "x"]
    assert cleaned([half, tenth, "x"], [leaked], share=0.5)[0] == [half, tenth, "x"]


def test_runs_do_not_go_from_one_column_to_the_next_and_columns_can_be_chosen() -> None:
    whole = words(*range(13))
    split = {"q": words(*range(6)), "a": words(*range(6, 13))}
    leaked = {"q": "fine", "a": whole}
    assert cleaned([split, leaked], [whole])[0] == [split]
    assert cleaned([split, leaked], [whole], columns=["q"])[0] == [split, leaked]


def test_batches_make_no_difference(made, monkeypatch: pytest.MonkeyPatch) -> None:
    train, tests = made
    whole = cleaned(train, tests)
    monkeypatch.setattr("ftk_plugins.transforms.rows.BATCH_ROWS", 7)
    assert cleaned(train, tests) == whole


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match="`shortest` must be at most `ngram`, 5"):
        cleaned(["a"], ngram=5, shortest=6)
    assert cleaned(["w0 w1 w2 w3 w4 w5", "x"], [words(*range(6))], ngram=5)[0] == ["x"]
