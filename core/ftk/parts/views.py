"""Sequences of items that are made when they are asked for, and what is known of items without making them."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from ftk.parts.part import Features


class View(Sequence[Features]):
    """A sequence of items that are made when they are asked for.

    Attributes:
        lengths: positions of each item, ``(items,) int64``.
        digest: SHA-256 of all that the items hold.
    """

    lengths: np.ndarray
    digest: str

    @abstractmethod
    def item(self, index: int) -> Features:
        """The item at an index from 0."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> list[Features]: ...
    def __getitem__(self, index: int | slice) -> Features | list[Features]:
        if isinstance(index, slice):
            return [self.item(each) for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.item(index % len(self))


class Selected(View):
    """Some rows of a sequence.

    Args:
        rows: the sequence.
        indices: which of them, ``(items,) int64``.
    """

    def __init__(self, rows: Sequence[Features], indices: np.ndarray) -> None:
        self._rows = rows
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def item(self, index: int) -> Features:
        return self._rows[int(self._indices[index])]

    @cached_property
    def lengths(self) -> np.ndarray:  # type: ignore[override]
        lengths: np.ndarray = lengths_of(self._rows)[self._indices]
        return lengths

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        return sha256_of(digest_of(self._rows).encode(), self._indices)


def lengths_of(items: Sequence[Features]) -> np.ndarray:
    """Positions of each item, ``(items,) int64``: from the items' own column where they have one."""
    found = getattr(items, "lengths", None)
    if isinstance(found, np.ndarray):
        return found
    return np.array([length_of(item) for item in items], np.int64)


def length_of(item: Features) -> int:
    """Positions of an item: entries of its longest 1-D array, or 1."""
    return max((len(array) for array in item.values() if array.ndim == 1), default=1)


def digest_of(items: Sequence[Features]) -> str:
    """SHA-256 of all that the items hold: known beforehand where they come from the cache."""
    found = getattr(items, "digest", None)
    if isinstance(found, str):
        return found
    named = (part for item in items for part in item.items())
    return sha256_of(*(part for name, array in named for part in (_told(name, array), np.ascontiguousarray(array))))


def _told(name: str, array: np.ndarray) -> bytes:
    """The name of a feature, and its shape where the number of its values does not tell it."""
    return (name if array.ndim == 1 else f"{name}{array.shape}").encode()


def sha256_of(*parts: Any) -> str:
    """SHA-256 of bytes and of contiguous arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
