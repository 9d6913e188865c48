"""The transform `deduplicate`: of rows that are the same, exactly or nearly, the first stays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from datasets import Dataset

from ftk import UserError
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.deduplicate.options import DeduplicateOptions
from ftk_plugins.transforms.rows import batches, joined, picked, text_columns
from ftk_plugins.transforms.words import plain_words, runs


class Deduplicate(Transform):
    """Drops each row that is the same as one before it which is kept."""

    def __init__(self, options: DeduplicateOptions) -> None:
        self.options = options
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        self._tally = Tally()
        columns = text_columns(dataset, self.options.columns, "deduplicate")
        keep = self._first_of_equal(dataset, columns)
        if self.options.method == "near":
            keep &= self._first_of_near(dataset, columns, keep)
        return picked(dataset, keep)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _first_of_equal(self, dataset: Dataset, columns: list[str]) -> np.ndarray:
        """Which rows say what none before them says, ``(rows,) bool``; compared by 64 bits for each row."""
        keys = np.fromiter((_key(row) for row in _rows(dataset, columns)), np.uint64, len(dataset))
        keep = np.zeros(len(dataset), dtype=bool)
        keep[np.unique(keys, return_index=True)[1]] = True
        dropped = np.flatnonzero(~keep)
        for number in dropped[:10].tolist():  # more than are kept as examples
            self._tally.dropped("the same as a row before", _text(dataset, columns, number))
        self._tally.dropped("the same as a row before", rows=max(len(dropped) - 10, 0))
        return keep

    def _first_of_near(self, dataset: Dataset, columns: list[str], candidates: np.ndarray) -> np.ndarray:
        """Which rows are nearly the same as none that is kept before them, ``(rows,) bool``.

        Locality-sensitive hashing of MinHash signatures (Broder 1997) finds candidates; what decides is the Jaccard
        similarity of the rows' own runs of words, so that no row is dropped by an estimate.
        """
        from datasketch import MinHash, MinHashLSH

        options = self.options
        try:
            # A candidate that proves to be none costs a comparison; a duplicate that is missed stays.
            index = MinHashLSH(options.threshold, options.permutations, weights=(0.05, 0.95))
        except ValueError:
            raise UserError(
                f"{options.permutations} hashes do not tell a similarity of {options.threshold:g} from a lower one",
                "raise `permutations`, or lower `threshold`",
            ) from None
        blank = MinHash(options.permutations, hashfunc=int)
        shingles_of = lru_cache(maxsize=256)(lambda number: self._shingles(_text(dataset, columns, number)))
        keep = np.ones(len(dataset), dtype=bool)
        for number, row in enumerate(_rows(dataset, columns)):
            if not candidates[number]:
                continue
            text = joined(row)
            shingles = self._shingles(text)
            signature = blank.copy()
            signature.update_batch((shingles & np.uint64(0xFFFFFFFF)).tolist())
            near = (
                earlier
                for earlier in sorted(index.query(signature))
                if jaccard(shingles, shingles_of(earlier)) >= options.threshold
            )
            if (first := next(near, None)) is None:
                index.insert(number, signature, check_duplication=False)
            else:
                keep[number] = False
                self._tally.dropped("nearly the same as a row before", _both(text, _text(dataset, columns, first)))
        return keep

    def _shingles(self, text: str) -> np.ndarray:
        """Numbers for the distinct runs of words, sorted ``uint64``; a text that is shorter is one run."""
        words = plain_words(text) or [text]
        return np.unique(runs(words, min(self.options.ngram, len(words))))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """The share of two sets' members that stand in both; each is sorted and without repetition."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _rows(dataset: Dataset, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    for batch in batches(dataset, columns):
        yield from batch


def _key(row: tuple[Any, ...]) -> int:
    plain = "\n".join(" ".join(line.split()).casefold() for line in joined(row).split("\n"))
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little")


def _text(dataset: Dataset, columns: list[str], number: int) -> str:
    row = dataset[number]
    return joined(tuple(row[name] for name in columns))


def _both(text: str, earlier: str) -> str:
    """Two texts side by side, each cut so that both are seen."""
    return f"{text[:140]} ≈ {earlier[:140]}"
