"""The transform `decontaminate`: looks for the runs of words of every test row in the training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from ftk import UserError
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.decontaminate.options import DecontaminateOptions
from ftk_plugins.transforms.rows import batches, picked, text_columns, texts_in
from ftk_plugins.transforms.words import plain_words, runs


@dataclass(frozen=True)
class Hit:
    """A run of words of a training row that stands in a test set: its number, where it begins, how long it is."""

    run: int
    start: int
    size: int


class Decontaminate(Transform):
    """Drops training rows that share runs of words with a test set (Brown et al. 2020, appendix C).

    Runs are compared by 64 bits each. Those of the test sets are in memory, and of the training rows those in both.
    """

    def __init__(self, options: DecontaminateOptions) -> None:
        self.options = options
        self._tally = Tally()
        self._tests: dict[int, dict[int, str]] = {}

    def see_tests(self, place: str, texts: Iterable[str]) -> None:
        """Take the runs of a test set; where several sets have one, it is told of the first."""
        for text in texts:
            words = plain_words(text)
            size = min(len(words), self.options.ngram)
            if size >= self.options.least:
                seen = self._tests.setdefault(size, {})
                for run in runs(words, size).tolist():
                    seen.setdefault(run, place)

    def apply(self, dataset: Dataset) -> Dataset:
        """Raises ``UserError`` where no test text is long enough to be looked for."""
        self._tally = Tally()
        columns = text_columns(dataset, self.options.columns, "decontaminate")
        if not self._tests:
            raise UserError(
                f"no text of a test set has {self.options.least} words, so there is nothing to look for",
                "lower `shortest`, or leave the transform out: rows that are the same are told by `data.overlap`",
            )
        known = {size: np.array(sorted(seen), np.uint64) for size, seen in self._tests.items()}
        found: dict[int, list[Hit]] = {}
        lengths: dict[int, int] = {}
        number = 0
        for rows in batches(dataset, columns):
            for row in rows:
                words = [plain_words(text) for value in row for text in texts_in(value)]
                if hits := list(_hits(words, known)):
                    found[number], lengths[number] = hits, sum(map(len, words))
                number += 1
        usual = self._usual(found)
        keep = np.ones(len(dataset), dtype=bool)
        for number, hits in found.items():
            leaked = [hit for hit in hits if (hit.size, hit.run) not in usual]
            if leaked and _covered(leaked) > self.options.share * lengths[number]:
                keep[number] = False
                self._tell(dataset, columns, number, leaked[0])
        return picked(dataset, keep)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _usual(self, found: dict[int, list[Hit]]) -> set[tuple[int, int]]:
        """The runs that stand in so many training rows that they are no leak."""
        rows = Counter(key for hits in found.values() for key in {(hit.size, hit.run) for hit in hits})
        return {key for key, count in rows.items() if count > self.options.common}

    def _tell(self, dataset: Dataset, columns: list[str], number: int, hit: Hit) -> None:
        row = dataset[number]
        words = [word for name in columns for text in texts_in(row[name]) for word in plain_words(text)]
        shared = " ".join(words[hit.start : hit.start + hit.size])
        self._tally.dropped(f"that share {hit.size} words with {self._tests[hit.size][hit.run]}", shared)


def _hits(texts: list[list[str]], known: dict[int, np.ndarray]) -> Iterator[Hit]:
    """The runs of a row's texts, no run over two of them, that are known; they begin where the row's words do."""
    first = 0
    for words in texts:
        for size, tested in known.items():
            numbers = runs(words, size)
            places = np.minimum(np.searchsorted(tested, numbers), len(tested) - 1)
            for start in np.flatnonzero(tested[places] == numbers).tolist():
                yield Hit(int(numbers[start]), first + start, size)
        first += len(words)


def _covered(hits: list[Hit]) -> int:
    """How many words stand in some of the runs."""
    return len({place for hit in hits for place in range(hit.start, hit.start + hit.size)})
