"""Holds `deduplicate` to brute force: every pair of rows compared by the Jaccard similarity of their runs of words."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ftk.errors import RecipeError, UserError
from ftk_plugins.transforms.deduplicate import options as options_module
from tests.plugins.transforms.applying import apply, texts, told

WORDS = [f"word{n}" for n in range(300)]


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    words = text.lower().split()
    size = min(size, len(words))
    return {tuple(words[n : n + size]) for n in range(len(words) - size + 1)}


def similarity(one: str, other: str, size: int) -> float:
    a, b = shingles(one, size), shingles(other, size)
    return len(a & b) / len(a | b)


def kept_by_brute_force(given: list[str], threshold: float, size: int) -> list[str]:
    kept: list[str] = []
    for text in given:
        if all(similarity(text, earlier, size) < threshold for earlier in kept):
            kept.append(text)
    return kept


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """Documents of 60 words, and copies of them in which some words are others: similarities from 0.1 to 1."""
    draw = random.Random(0)
    made = []
    for _ in range(40):
        original = draw.choices(WORDS, k=60)
        made.append(" ".join(original))
        for changes in (0, 1, 2, 4, 8):
            copy = list(original)
            for place in draw.sample(range(60), changes):
                copy[place] = draw.choice(WORDS)
            made.append(" ".join(copy))
    draw.shuffle(made)
    return made


@pytest.mark.parametrize(("threshold", "ngram"), [(0.8, 5), (0.5, 5), (0.8, 1)])
def test_near_duplicates_are_those_of_brute_force(documents: list[str], threshold: float, ngram: int) -> None:
    after = texts("deduplicate", documents, method="near", threshold=threshold, ngram=ngram)
    expected = kept_by_brute_force(documents, threshold, ngram)
    # Hashing may miss a pair close to the threshold, and then keeps a row more; it never drops one for nothing.
    missed = set(after) - set(expected)
    assert set(after) >= set(expected) - {text for text in expected if missed}
    assert len(missed) <= 0.05 * (len(documents) - len(expected))
    for text in missed:
        most = max(similarity(text, other, ngram) for other in documents if other != text)
        assert most < threshold + 0.2


def test_more_permutations_miss_less(documents: list[str]) -> None:
    expected = len(kept_by_brute_force(documents, 0.8, 5))
    few = len(texts("deduplicate", documents, method="near", permutations=16))
    many = len(texts("deduplicate", documents, method="near", permutations=512))
    assert expected <= many < few
    with pytest.raises(UserError, match=r"16 hashes do not tell a similarity of 0.99 .*\n  raise `permutations`"):
        texts("deduplicate", documents, method="near", permutations=16, threshold=0.99)


def test_no_row_is_dropped_by_an_estimate(documents: list[str]) -> None:
    """What is dropped is as similar as asked to a row that is kept, although candidates are many at 16 hashes."""
    after = texts("deduplicate", documents, method="near", threshold=0.6, permutations=16)
    for text in set(documents) - set(after):
        assert max(similarity(text, kept, 5) for kept in after) >= 0.6


def test_signatures_estimate_the_similarity(documents: list[str]) -> None:
    """datasketch's MinHash over the runs that `deduplicate` makes agrees with brute force, to its standard error."""
    from datasketch import MinHash

    from ftk_plugins.transforms.words import plain_words, runs

    signed = []
    for text in documents[:60]:
        signature = MinHash(256, hashfunc=int)
        signature.update_batch((np.unique(runs(plain_words(text), 5)) & np.uint64(0xFFFFFFFF)).tolist())
        signed.append(signature)
    errors = [
        signed[a].jaccard(signed[b]) - similarity(documents[a], documents[b], 5) for a in range(60) for b in range(a)
    ]
    assert abs(float(np.mean(errors))) < 0.01
    assert max(map(abs, errors)) < 5 * 0.5 / 256**0.5


def test_the_first_of_equal_rows_stays() -> None:
    rows = [
        {"q": "One", "a": "x", "n": 0},
        {"q": "one ", "a": "X", "n": 1},
        {"q": "two", "a": "x", "n": 2},
        {"q": "one", "a": "y", "n": 3},
        {"q": "two", "a": "x", "n": 4},
    ]
    after, effects = apply("deduplicate", rows)
    assert [row["n"] for row in after] == [0, 2, 3]
    assert told(effects) == {"dropped the same as a row before": 2}
    assert effects[0].examples == ("one \nX", "two\nx")
    by_question, _ = apply("deduplicate", rows, columns=["q"])
    assert [row["n"] for row in by_question] == [0, 2]


def test_many_equal_rows_are_all_counted() -> None:
    after, effects = apply("deduplicate", [{"text": "the same"}] * 50)
    assert len(after) == 1
    assert told(effects) == {"dropped the same as a row before": 49}
    assert len(effects[0].examples) == 3


def test_what_is_near_is_told_beside_the_row_that_stays(documents: list[str]) -> None:
    text = documents[0]
    after, effects = apply("deduplicate", [{"text": text}, {"text": f"{text} more"}, {"text": text}], method="near")
    assert after == [{"text": text}]
    assert told(effects) == {"dropped the same as a row before": 1, "dropped nearly the same as a row before": 1}
    assert effects[1].examples == (f"{text[:140]} ≈ {text[:140]}",)


def test_texts_shorter_than_a_run_are_compared_as_a_whole() -> None:
    given = ["one two", "One, two!", "two one", "!!", "??", "我爱你们吗", "我爱你们吗?"]
    assert texts("deduplicate", given, method="near") == ["one two", "two one", "!!", "??", "我爱你们吗"]


@pytest.mark.parametrize("name", ["threshold", "ngram", "permutations"])
def test_options_of_the_other_method_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f'`{name}` acts with method = "near" alone'):
        apply("deduplicate", [{"text": "a"}], **{name: 0.5 if name == "threshold" else 64})


def test_without_the_package_the_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs the package datasketch: pip install .*\[deduplicate\]"):
        apply("deduplicate", [{"text": "a"}], method="near")
    assert texts("deduplicate", ["a", "A"]) == ["a"]


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="`deduplicate` finds no column `body`"):
        apply("deduplicate", [{"text": "a"}], columns=["body"])
