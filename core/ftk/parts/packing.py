"""Encoded rows as training takes them: long ones cut into windows, short ones joined; an index, never a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftk.errors import RunFailed
from ftk.parts.part import Features
from ftk.parts.views import View, digest_of, lengths_of, sha256_of


@dataclass(frozen=True, slots=True)
class Packing:
    """How encoded rows become the items that training draws from. A position is an entry of a row's longest array.

    Attributes:
        length: the most positions of an item; a longer row is cut into windows of so many, all its arrays alike.
        joined: whether short rows and windows share an item.
        repeated: positions that a window takes over from the end of the one before.
        added: the most positions that :meth:`Objective.vary` adds to a row or window; they count towards ``length``.
    """

    length: int
    joined: bool = False
    repeated: int = 0
    added: int = 0


class Packed(View):
    """Rows cut and joined.

    Args:
        rows: the encoded rows.
        packing: how.
        join: makes one item of several pieces.
    """

    def __init__(
        self, rows: Sequence[Features], packing: Packing, join: Callable[[Sequence[Features]], Features]
    ) -> None:
        self._rows = rows
        self._packing = packing
        self._join = join
        self._row, self._start, self._stop = windows(lengths_of(rows), packing)
        pieces = self._stop - self._start + packing.added
        block_of = best_fit(pieces, packing.length) if packing.joined else np.arange(len(pieces))
        self._order = np.argsort(block_of, kind="stable")
        self._ends = np.cumsum(np.bincount(block_of))
        self.lengths = np.bincount(block_of, weights=pieces).astype(np.int64)

    def item(self, index: int, change: Callable[[Features], Features] = lambda piece: piece) -> Features:
        """The item at an index from 0, each of its pieces changed before they are joined."""
        start = self._ends[index - 1] if index else 0
        pieces = [change(self._piece(piece)) for piece in self._order[start : self._ends[index]]]
        return self._join(pieces) if self._packing.joined else pieces[0]

    def piece(self, rng: np.random.Generator) -> Features:
        """One of all pieces, each as likely as any other."""
        return self._piece(int(rng.integers(len(self._order))))

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        return sha256_of(digest_of(self._rows).encode(), repr(self._packing).encode())

    def _piece(self, index: int) -> Features:
        row = self._rows[int(self._row[index])]
        start, stop = self._start[index], self._stop[index]
        return {name: array[start:stop] for name, array in row.items()}


def packed(
    rows: Sequence[Features], packing: Packing, join: Callable[[Sequence[Features]], Features]
) -> Sequence[Features]:
    """The rows cut and joined; the rows themselves where there is nothing to cut and nothing to join."""
    if len(rows) and any(array.ndim != 1 for array in rows[0].values()):
        raise RunFailed("the objective cuts or joins rows whose features are not all 1-D arrays")
    if not packing.joined and not packing.added and (not len(rows) or lengths_of(rows).max() <= packing.length):
        return rows
    return Packed(rows, packing, join)


def windows(lengths: np.ndarray, packing: Packing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pieces that rows are cut into: for each the row, its first position there, and the one after its last."""
    length = packing.length - packing.added
    step = length - packing.repeated
    counts = np.where(lengths > length, -(-(lengths - packing.repeated) // step), 1)
    row = np.repeat(np.arange(len(lengths)), counts)
    start = (np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)) * step
    return row, start, np.minimum(start + length, lengths[row])


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Which block each piece goes into, by best-fit decreasing bin packing: ``(pieces,) int64``.

    Longest first, each piece goes into the fullest block with room for it. Pieces of one length are placed
    together: a block that takes one of them is the fullest with room for the next, until it has none. So the work
    grows with the number of lengths, not of pieces. Blocks are numbered by the first piece in them.

    Args:
        lengths: of the pieces, each 1 to ``capacity``.
        capacity: of a block.
    """
    block_of = np.empty(len(lengths), np.int64)
    order = np.argsort(-lengths, kind="stable")
    distinct, firsts = np.unique(-lengths[order], return_index=True)
    blocks_with: dict[int, list[np.ndarray]] = {}  # by the space they have left
    blocks = 0
    for length, pieces in zip(-distinct, np.split(order, firsts[1:]), strict=True):
        length = int(length)
        while len(pieces):
            space = min((space for space in blocks_with if space >= length), default=None)
            if space is None:
                space = capacity
                new = -(-len(pieces) // (space // length))
                chosen = np.arange(blocks, blocks + new)
                blocks += new
            else:
                chosen = blocks_with[space].pop()
                if not blocks_with[space]:
                    del blocks_with[space]
            each = space // length
            taken = -(-len(pieces) // each)
            if taken < len(chosen):
                blocks_with.setdefault(space, []).append(chosen[taken:])
                chosen = chosen[:taken]
            placed = np.repeat(chosen, each)[: len(pieces)]
            block_of[pieces[: len(placed)]] = placed
            pieces = pieces[len(placed) :]
            last = len(placed) - (len(chosen) - 1) * each
            for some, left in ((chosen[:-1], space - each * length), (chosen[-1:], space - last * length)):
                if len(some) and left:
                    blocks_with.setdefault(left, []).append(some)
    _, first, number = np.unique(block_of, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]
