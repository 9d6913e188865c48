"""A text and what rules count in it, each computed once and only if a rule asks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from ftk_plugins.transforms.words import runs, words_of


class Passage:
    """The text of a row.

    Args:
        text: all of it.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """The words as they are written, with the punctuation at them."""
        return words_of(self.text)

    @cached_property
    def word_lengths(self) -> np.ndarray:
        """Characters of each word, ``(words,) int64``."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not empty, without the white space around them."""
        return [stripped for line in self.text.split("\n") if (stripped := line.strip())]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What empty lines part, without the white space around it."""
        return list(_paragraphs(self.text))

    def run_counts(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """For each run of ``size`` words which run it is, and how often each is there; both ``int64``."""
        _, which, counts = np.unique(runs(self.words, size), return_inverse=True, return_counts=True)
        return which, counts

    def share_within(self, starts: np.ndarray, size: int) -> float:
        """The share of the words' characters in runs of ``size`` words that begin where ``starts`` marks."""
        if not starts.any():
            return 0.0
        edges = np.zeros(len(self.words) + 1, np.int64)
        places = np.flatnonzero(starts)
        np.add.at(edges, places, 1)
        np.add.at(edges, places + size, -1)
        inside = np.cumsum(edges[:-1]) > 0
        return float(self.word_lengths[inside].sum() / self.word_lengths.sum())


def _paragraphs(text: str) -> Iterator[str]:
    gathered: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            gathered.append(line.strip())
        elif gathered:
            yield "\n".join(gathered)
            gathered = []
