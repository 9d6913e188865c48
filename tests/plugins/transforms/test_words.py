"""Holds words and their runs to what other parts of the transforms count on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ftk_plugins.transforms.words import plain_words, runs, word_spans, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's  one,\ttwo!\n", ["It's", "one,", "two!"]),
        ("我爱 Rome。", ["我", "爱", "Rome。"]),
        ("naïve café", ["naïve", "café"]),
        ("東京タワーABC", ["東", "京", "タ", "ワ", "ー", "ABC"]),
        ("", []),
    ],
)
def test_words_are_parted_by_space_and_characters_of_unspaced_scripts_stand_alone(text, words) -> None:
    assert words_of(text) == [text[start:end] for start, end in word_spans(text)] == words


def test_plain_words_have_no_capitals_and_no_punctuation() -> None:
    assert plain_words("»Don't« PANIC, Straße_1! 我爱。") == ["don", "t", "panic", "strasse_1", "我", "爱"]
    assert plain_words("हिन्दी") == ["हिन्दी"], "marks belong to their letters"


@pytest.mark.parametrize("text", ["It's  ONE,\ttwo_2! \x1c a-b", "x\x1fy\x0bz . ?"])
def test_texts_of_ascii_alone_are_read_as_others_are(text: str) -> None:
    assert [*words_of(text), "é"] == words_of(f"{text} é")
    assert [*plain_words(text), "é"] == plain_words(f"{text} é")
    assert word_spans(text) == word_spans(f"{text} é")[:-1]


def test_equal_runs_have_equal_numbers_and_others_do_not() -> None:
    words = [f"w{(n * n) % 7}" for n in range(200)]
    for size in (1, 3, 13):
        numbers = runs(words, size)
        assert len(numbers) == 200 - size + 1
        written = [tuple(words[start : start + size]) for start in range(len(numbers))]
        assert len(set(zip(written, numbers.tolist(), strict=True))) == len(set(written)) == len(set(numbers.tolist()))
    assert len(runs(["a"], 2)) == 0
    assert runs(["a", "b"], 2) != runs(["b", "a"], 2)


def test_the_numbers_are_the_same_in_every_process() -> None:
    code = "from ftk_plugins.transforms.words import runs; print(*runs(['one', 'two', 'three'], 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [str(number) for number in runs(["one", "two", "three"], 2)]
