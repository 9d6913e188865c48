"""Holds the rules of Gopher and C4 to their papers: each on texts made to stand just within it and just beyond."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from ftk_plugins.transforms.filter import c4, gopher
from ftk_plugins.transforms.filter.passage import Passage
from tests.plugins.transforms.applying import apply, told

GOOD = " ".join(["the plain sentence that people have written here"] * 8)
"""64 words, of 5.1 letters on average, with five stop words."""


def words(*pairs: tuple[str, int]) -> str:
    """So many of each word."""
    return " ".join(word for word, count in pairs for _ in range(count))


def lines(*pairs: tuple[str, int]) -> str:
    return "\n".join(
        f"{line} {n}" if "%" not in line else line.replace("%", str(n)) for line, c in pairs for n in range(c)
    )


QUALITY = {
    "words": (words(("the", 25), ("that", 25)), words(("the", 24), ("that", 25)), "fewer than 50 words"),
    "many words": (
        words(("the", 1), ("that", 99_999)),
        words(("the", 1), ("that", 100_000)),
        "more than 100,000 words",
    ),
    "short": (words(("the", 50), ("of", 1), ("that", 1)), words(("the", 50), ("of", 1), ("and", 1)), "less than 3"),
    "long": (
        words(("the", 1), ("that", 1), ("abcdefghij" + "k", 13), ("abcdefghij", 40)),
        words(("the", 1), ("that", 1), ("abcdefghij" + "k", 14), ("abcdefghij", 40)),
        "more than 10 letters",
    ),
    "hashes": (f"{GOOD} {'#' * 6}", f"{GOOD} {'#' * 7}", "more than one # for ten words"),
    "ellipses": (f"{'…' * 3}{'...' * 3} {GOOD}", f"{'…' * 4}{'...' * 3} {GOOD}", "more than one ellipsis"),
    "bullets": (
        lines(
            ("- another number that people have written here and there%", 18),
            ("another number that people have written here and there%", 2),
        ),
        lines(
            ("- another number that people have written here and there%", 19),
            ("another number that people have written here and there%", 2),
        ),
        "more than 90% of lines",
    ),
    "ends": (
        lines(("the long line that ends %...", 3), ("the very long line that ends %", 7)),
        lines(("the long line that ends %…", 4), ("the very long line that ends %", 7)),
        "more than 30% of lines",
    ),
    "letters": (words(("that", 20), ("the", 20), ("1234", 10)), words(("that", 20), ("the", 20), ("1234", 11)), "80%"),
    "stop words": (words(("With,", 30), ("HAVE", 30)), words(("with", 30), ("hares", 30)), "fewer than two English"),
}
"""For each quality rule a text that keeps it by the least, one that does not, and what is told."""


@pytest.mark.parametrize("name", QUALITY)
def test_gophers_quality_rules(name: str) -> None:
    within, beyond, message = QUALITY[name]
    assert gopher.quality(Passage(within)) is None
    assert message in (gopher.quality(Passage(beyond)) or "")


def distinct(count: int, length: int = 4) -> list[str]:
    """So many different pieces of equal length."""
    return [f"{n:0{length}d}" for n in range(count)]


def repeated(count: int, total: int, join: str, length: int = 4, long: int = 4) -> str:
    """Pieces of which ``count`` stood before; those are ``long``, the others ``length`` characters long."""
    return join.join([*distinct(total - count - 1, length), *["x" * long] * (count + 1)])


@pytest.mark.parametrize(
    ("within", "beyond", "message"),
    [
        (repeated(3, 10, "\n", 20, 2), repeated(4, 10, "\n", 20, 2), "30% of lines"),
        (repeated(1, 10, "\n", 3, 8), repeated(1, 10, "\n", 3, 9), "20% of characters in repeated lines"),
        (repeated(3, 10, "\n\n", 20, 2), repeated(4, 10, "\n\n", 20, 2), "30% of lines"),
    ],
)
def test_gophers_rules_on_repeated_lines(within: str, beyond: str, message: str) -> None:
    assert "lines" not in (gopher.repetition(Passage(within)) or "")
    assert message in (gopher.repetition(Passage(beyond)) or "")


def test_gophers_rules_on_repeated_paragraphs() -> None:
    """Paragraphs of two lines: here no line is repeated by so much, as every paragraph has one of its own."""
    body = "\n\n".join(f"{n:030d}\n{m}" for n, m in enumerate(["a", "b", "c", "d"]))
    passage = Passage(f"{body}\n\n{'0' * 30}\na\n\n{0:030d}\na")
    assert passage.paragraphs[0] == passage.paragraphs[-1] == "0" * 30 + "\na"
    assert len(passage.paragraphs) == 6
    assert gopher._repeated(passage.paragraphs) == (2 / 6, 64 / 192)


def brute_top_share(text: str, size: int) -> float:
    words = text.split()
    found = Counter(tuple(words[n : n + size]) for n in range(len(words) - size + 1))
    most = max(found.values(), default=0)
    return max((brute_inside(words, size, {run}) for run, n in found.items() if n == most > 1), default=0.0)


def brute_repeated_share(text: str, size: int) -> float:
    words = text.split()
    found = Counter(tuple(words[n : n + size]) for n in range(len(words) - size + 1))
    return brute_inside(words, size, {run for run, n in found.items() if n > 1})


def brute_inside(words: list[str], size: int, runs: set[tuple[str, ...]]) -> float:
    marked = [False] * len(words)
    for start in range(len(words) - size + 1):
        if tuple(words[start : start + size]) in runs:
            marked[start : start + size] = [True] * size
    return sum(len(w) for w, m in zip(words, marked, strict=True) if m) / sum(map(len, words))


@pytest.mark.parametrize("seed", range(6))
def test_shares_of_repeated_runs_are_those_of_brute_force(seed: int) -> None:
    draw = random.Random(seed)
    text = " ".join("w" * draw.randint(1, 5) + str(draw.randint(0, 3)) for _ in range(120))
    passage = Passage(text)
    for size in range(2, 11):
        assert gopher.top_share(passage, size) == pytest.approx(brute_top_share(text, size))
        assert gopher.repeated_share(passage, size) == pytest.approx(brute_repeated_share(text, size))


def test_gophers_table_of_repeated_runs() -> None:
    """A sentence of 10 words, said twice among 190 others: 20 of 210 words are within its runs, 9.5%; thrice, 13.6%."""
    sentence = " ".join(distinct(10))
    rest = [f"9{word}"[-4:] for word in distinct(999)][100:290]
    twice, thrice = (" ".join([*rest[:95], *[sentence] * n, *rest[95:]]) for n in (2, 3))
    assert gopher.repetition(Passage(twice)) is None
    assert gopher.repetition(Passage(thrice)) == (
        "with more than 13% of characters in repeated runs of 7 words (gopher_repetition)"
    )
    pair = " ".join(["aaaa bbbb", *distinct(7)])
    within, beyond = (" ".join([*["aaaa bbbb"] * n, *(f"8{w}"[-4:] for w in distinct(40))]) for n in (5, 6))
    assert "top run of 2" not in (gopher.repetition(Passage(within)) or "")
    assert "20% of characters in the top run of 2 words" in (gopher.repetition(Passage(beyond)) or "")
    assert gopher.repetition(Passage(pair)) is None, "what is said once is not repeated"


PAGE = """Home | About us | Contact
This is the first sentence of a page. It has a second sentence, too!
We use cookies on this page, as you can see here.
Please enable Javascript to see all of this page.
Too short a line.
And is the last line the third sentence [12] of the page?[citation needed]
"""


def test_c4_keeps_lines_that_are_sentences_and_pages_that_have_three() -> None:
    kept = (
        "This is the first sentence of a page. It has a second sentence, too!\n"
        "And is the last line the third sentence  of the page?"
    )
    short = PAGE.replace(" It has a second sentence, too!", "")
    rows = [{"text": PAGE}, {"text": short}, {"text": f"{PAGE}if (a) {{"}, {"text": f"{PAGE}Lorem ipsum dolor"}]
    after, effects = apply("filter", rows, rules=["c4"])
    assert after == [{"text": kept}]
    assert told(effects) == {
        "changed with lines that are no sentences (c4)": 1,
        "dropped with fewer than 3 sentences in lines that stay (c4)": 1,
        "dropped with a curly bracket (c4)": 1,
        'dropped with "lorem ipsum" (c4)': 1,
    }
    assert {effect.examples for effect in effects} >= {(PAGE,), (short,)}


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("It has five words here.", True),
        ("It has five words here", False),
        ("Only four words here.", False),
        ('He said "it has five words"', True),
        ("Read our Terms of Use before you go on.", False),
        ("Read our Privacy Policy before you go on.", False),
        ("JavaScript is a language with a long history.", False),
    ],
)
def test_c4s_rules_on_lines(line: str, stays: bool) -> None:
    assert c4.kept_lines(f"  {line} \n\n") == (line if stays else "")


@pytest.mark.parametrize("rule", ["gopher_quality", "gopher_repetition", "c4"])
def test_rules_are_chosen_by_name(rule: str) -> None:
    fails: dict[str, Callable[[str], bool]] = {
        "gopher_quality": lambda text: text == "too short.",
        "gopher_repetition": lambda text: text == GOOD,
        "c4": lambda text: True,
    }
    rows = [{"text": GOOD}, {"text": "too short."}]
    assert apply("filter", rows, rules=[rule])[0] == [row for row in rows if not fails[rule](row["text"])]


def test_other_limits_judge_what_c4_leaves() -> None:
    (row,), _ = apply("filter", [{"text": PAGE}], rules=["c4"])
    count = len(row["text"].split())
    assert len(apply("filter", [{"text": PAGE}], rules=["c4"], min_words=count)[0]) == 1
    assert apply("filter", [{"text": PAGE}], rules=["c4"], min_words=count + 1)[0] == []
