"""Encoded rows and the tasks made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ftk.errors import RunFailed, UserError
from ftk.parts.evaluator import Evaluator
from ftk.parts.objective import Objective
from ftk.parts.packing import Packing, packed
from ftk.parts.part import Features, Row
from ftk.parts.varying import varied
from ftk.parts.views import Selected

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_AT_A_TIME = 1000


class Examples:
    """The rows of one role in one task, with their encoding made once, on first use.

    Args:
        rows: the rows.
        objective: encodes them.
        processor: the model's tokenizer or image processor.
        origin: where they come from in the recipe, as in ``stage.currencies.data.train``; for messages.
        encode: gives the encoded rows; by default they are encoded here and kept in memory.
    """

    def __init__(
        self,
        rows: Dataset,
        objective: Objective,
        processor: Any,
        origin: str,
        encode: Callable[[], Sequence[Features]] | None = None,
    ) -> None:
        self.rows = rows
        self.objective = objective
        self.processor = processor
        self.origin = origin
        self._encode = encode or self._encode_here

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def numbers(self) -> np.ndarray:
        """A number of each row by its content, ``(rows,) int64``: equal rows have the same, in every run."""
        batches = self.rows.with_format("arrow").iter(ROWS_AT_A_TIME)
        texts = (repr(sorted(row.items())) for batch in batches for row in batch.to_pylist())
        digests = (hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() for text in texts)
        return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)

    @cached_property
    def encoded(self) -> Sequence[Features]:
        """Each row encoded on its own, in the order of ``rows``, not varied; the arrays may be read-only.

        Raises:
            UserError: a row cannot be encoded; names the origin and the row, counted from 1.
        """
        return self._encode()

    @cached_property
    def pieces(self) -> Sequence[Features]:
        """:attr:`items`, with none joined."""
        packing = self.objective.packing()
        return self._packed(packing and replace(packing, joined=False))

    @cached_property
    def items(self) -> Sequence[Features]:
        """What training draws from: :attr:`encoded`, cut and joined if the objective asks for it, and varied.

        Read here, they are varied by their content alone, so that a measurement can be repeated.
        """
        return self._packed(self.objective.packing())

    def row(self, index: int) -> Row:
        """One raw row."""
        row: Row = self.rows[index]
        return row

    def subset(self, indices: Sequence[int]) -> Examples:
        """The examples at these row indices, reusing the encoding if it was made."""
        chosen = Examples(self.rows.select(indices), self.objective, self.processor, self.origin)
        if "encoded" in self.__dict__:
            chosen.__dict__["encoded"] = Selected(self.encoded, np.asarray(indices, np.int64))
        return chosen

    def _packed(self, packing: Packing | None) -> Sequence[Features]:
        items = self.encoded if packing is None else packed(self.encoded, packing, self.objective.join)
        return varied(items, self.objective, self.processor)

    def _encode_here(self) -> list[Features]:
        return encode_rows(list(self.rows), self.objective, self.processor, self.origin)


def encode_rows(
    rows: Sequence[Row], objective: Objective, processor: Any, origin: str, first: int = 1
) -> list[Features]:
    """Encode rows, the first of which is number ``first`` of ``origin``.

    Raises:
        UserError: a row cannot be encoded; names the origin and the first such row.
        RunFailed: the objective gives more or fewer rows than it was given.
    """
    try:
        encoded = objective.encode_batch(rows, processor)
    except UserError as failure:
        for number, row in enumerate(rows, start=first):
            try:
                objective.encode(row, processor)
            except UserError as error:
                raise UserError(f"{origin}, row {number}: {error.message}", error.hint) from error
        raise UserError(f"{origin}: {failure.message}", failure.hint) from failure
    if len(encoded) != len(rows):
        raise RunFailed(f"{type(objective).__name__}.encode_batch gave {len(encoded)} rows for {len(rows)}")
    return encoded


@dataclass(frozen=True)
class Task:
    """A body of knowledge: what a stage teaches, or what ``data.retain`` holds.

    Attributes:
        name: the stage's name, or ``retain``; of one of several that a stage teaches ``stage/member``.
        objective: encodes its rows and gives its loss.
        train: what is learned, or retained.
        validation: for choices made during a run (a mixing weight); None where the recipe gives none.
        test: what evaluators measure; None where the recipe gives none.
        probes: further test sets by name, measured beside ``test``.
        evaluators: the measurements, in recipe order.
        passes: how often an epoch of the stage that teaches it goes over its training rows: not once where its rows
            are a part of a mixture that repeats them.
    """

    name: str
    objective: Objective
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None
    probes: dict[str, Examples] = field(default_factory=dict)
    evaluators: tuple[Evaluator, ...] = ()
    passes: float = 1.0
