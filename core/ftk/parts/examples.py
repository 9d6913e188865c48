"""Encoded rows and the tasks made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftk.errors import UserError
from ftk.parts.evaluator import Evaluator
from ftk.parts.objective import Objective
from ftk.parts.part import Features, Row

if TYPE_CHECKING:
    from datasets import Dataset


class Examples:
    """The rows of one role in one task, with their encoding made once, on first use.

    Args:
        rows: the rows.
        objective: encodes them.
        processor: the model's tokenizer or image processor.
        origin: where they come from in the recipe, as in ``stage.currencies.data.train``; for messages.
    """

    def __init__(self, rows: Dataset, objective: Objective, processor: Any, origin: str) -> None:
        self.rows = rows
        self.objective = objective
        self.processor = processor
        self.origin = origin

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def encoded(self) -> list[Features]:
        """Each row encoded on its own, in the order of ``rows``.

        Raises:
            UserError: a row cannot be encoded; names the origin and the row, counted from 1.
        """
        encoded = []
        for number, row in enumerate(self.rows, start=1):
            try:
                encoded.append(self.objective.encode(row, self.processor))
            except UserError as error:
                raise UserError(f"{self.origin}, row {number}: {error.message}", error.hint) from error
        return encoded

    @cached_property
    def items(self) -> list[Features]:
        """What training draws from: :attr:`encoded`, packed if the objective packs."""
        return self.objective.pack(self.encoded)

    def row(self, index: int) -> Row:
        """One raw row."""
        row: Row = self.rows[index]
        return row

    def subset(self, indices: Sequence[int]) -> Examples:
        """The examples at these row indices, reusing the encoding if it was made."""
        chosen = Examples(self.rows.select(indices), self.objective, self.processor, self.origin)
        if "encoded" in self.__dict__:
            chosen.__dict__["encoded"] = [self.encoded[i] for i in indices]
        return chosen


@dataclass(frozen=True)
class Task:
    """A body of knowledge: what a stage teaches, or what ``data.retain`` holds.

    Attributes:
        name: the stage's name, or ``retain``.
        objective: encodes its rows and gives its loss.
        train: what is learned, or retained.
        validation: for choices made during a run (a mixing weight); None where the recipe gives none.
        test: what evaluators measure; None where the recipe gives none.
        probes: further test sets by name, measured beside ``test``.
        evaluators: the measurements, in recipe order.
    """

    name: str
    objective: Objective
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None
    probes: dict[str, Examples] = field(default_factory=dict)
    evaluators: tuple[Evaluator, ...] = ()
