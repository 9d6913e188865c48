"""The limits that a recipe sets itself: length, script, symbols, repetition."""

from __future__ import annotations

from collections.abc import Callable

import regex

from ftk_plugins.transforms.filter.options import FilterOptions
from ftk_plugins.transforms.filter.passage import Passage

Rule = Callable[[Passage], str | None]
"""Says why a passage should go, in words that follow a number of rows; None: it may stay."""

_LETTER = regex.compile(r"\p{L}")
_SYMBOL, _SPACE = regex.compile(r"[^\p{L}\p{M}\p{N}\s]"), regex.compile(r"\s")
REPEATED = 4
"""Words in a run whose repetition counts: seq-rep-4 of Welleck et al. 2020."""


def limits(options: FilterOptions) -> list[Rule]:
    """The limits that the options set, the quick ones first."""
    rules: list[Rule] = []
    if options.min_characters is not None or options.max_characters is not None:
        rules.append(_length("characters", options.min_characters, options.max_characters, lambda p: len(p.text)))
    if options.min_words is not None or options.max_words is not None:
        rules.append(_length("words", options.min_words, options.max_words, lambda p: len(p.words)))
    if options.scripts:
        rules.append(_script(options.scripts, options.min_script_share))
    if options.max_symbol_share is not None:
        rules.append(_symbols(options.max_symbol_share))
    if options.max_repetition is not None:
        rules.append(_repetition(options.max_repetition))
    return rules


def _length(what: str, least: int | None, most: int | None, count: Callable[[Passage], int]) -> Rule:
    def rule(passage: Passage) -> str | None:
        found = count(passage)
        if least is not None and found < least:
            return f"with fewer than {least} {what}"
        return f"with more than {most} {what}" if most is not None and found > most else None

    return rule


def _script(scripts: list[str], least: float) -> Rule:
    wanted = regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in scripts) + "]")

    def rule(passage: Passage) -> str | None:
        letters = _LETTER.findall(passage.text)
        fitting = sum(1 for letter in letters if wanted.match(letter))
        named = " or ".join(scripts)
        return f"with less than {least:.0%} of the letters in {named}" if fitting < least * len(letters) else None

    return rule


def _symbols(most: float) -> Rule:
    def rule(passage: Passage) -> str | None:
        characters = len(passage.text) - len(_SPACE.findall(passage.text))
        symbols = len(_SYMBOL.findall(passage.text))
        return f"with more than {most:.0%} symbols" if symbols > most * characters else None

    return rule


def _repetition(most: float) -> Rule:
    def rule(passage: Passage) -> str | None:
        which, counts = passage.run_counts(REPEATED)
        repeated = len(which) - len(counts)
        told = f"with more than {most:.0%} of runs of {REPEATED} words repeated"
        return told if repeated > most * len(which) else None

    return rule
