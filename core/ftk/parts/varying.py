"""Items as an objective makes them anew each time training draws one, and always alike wherever they are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ftk.parts.objective import Objective
from ftk.parts.packing import Packed
from ftk.parts.part import Features
from ftk.parts.views import View, digest_of, lengths_of


class Varied(View):
    """Items as :meth:`Objective.vary` makes them. Packed ones are varied piece by piece, before they are joined.

    Read as any sequence, each piece is varied by a generator that its content alone seeds: a measurement can be
    repeated, and sees the same in every stage and however the rows are packed. :meth:`drawn` varies anew, what
    :meth:`Objective.augment` makes of the piece.

    Args:
        items: encoded rows, cut and joined or not.
        objective: what varies them.
        processor: the model's tokenizer or image processor.

    Attributes:
        lengths: positions of each item before it is varied, ``(items,) int64``.
    """

    def __init__(self, items: Sequence[Features], objective: Objective, processor: Any) -> None:
        self._items = items
        self._objective = objective
        self._processor = processor

    def item(self, index: int) -> Features:
        if type(self._objective).vary is Objective.vary:
            return self._each(index, lambda piece: piece)

        def vary(piece: Features) -> Features:
            rng = np.random.default_rng(int(digest_of([piece])[:16], 16))
            return self._objective.vary(piece, self._processor, rng)

        return self._each(index, vary)

    def drawn(self, index: int, rng: np.random.Generator) -> Features:
        """The item at an index from 0, its pieces augmented and varied by ``rng`` one after the other."""
        items = self._items

        def draw() -> Features:
            return items.piece(rng) if isinstance(items, Packed) else items[int(rng.integers(len(items)))]

        def make(piece: Features) -> Features:
            augmented = self._objective.augment(piece, draw, self._processor, rng)
            return self._objective.vary(augmented, self._processor, rng)

        return self._each(index, make)

    def _each(self, index: int, change: Callable[[Features], Features]) -> Features:
        return self._items.item(index, change) if isinstance(self._items, Packed) else change(self._items[index])

    @cached_property
    def lengths(self) -> np.ndarray:  # type: ignore[override]
        return lengths_of(self._items)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        return digest_of(self._items)


def varied(items: Sequence[Features], objective: Objective, processor: Any) -> Sequence[Features]:
    """The items as the objective varies them; the items themselves where it takes rows as they are."""
    made = type(objective)
    as_it_is = made.vary is Objective.vary and made.augment is Objective.augment
    return items if as_it_is else Varied(items, objective, processor)
