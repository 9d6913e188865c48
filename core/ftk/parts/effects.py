"""What a transform did to rows and why, told in numbers and examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fate = Literal["dropped", "changed", "made"]

EXAMPLES = 3
"""How many examples are kept of each reason."""

EXAMPLE_LENGTH = 300
"""How many characters are kept of an example."""


@dataclass(frozen=True)
class Effect:
    """What befell some rows, and why.

    Attributes:
        fate: whether the rows are gone, are there with another content, or were not there before.
        reason: why, in words that follow a number of rows: ``fewer than 50 words``.
        rows: how many.
        examples: the texts of some of them, shortened.
    """

    fate: Fate
    reason: str
    rows: int
    examples: tuple[str, ...] = ()


class Tally:
    """Counts rows by what befell them and why, and keeps the first examples of each."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Fate, str], int] = {}
        self._examples: dict[tuple[Fate, str], list[str]] = {}

    def dropped(self, reason: str, example: str = "", rows: int = 1) -> None:
        """Count rows that are gone. A row is counted once, under one reason."""
        self._add("dropped", reason, example, rows)

    def changed(self, reason: str, example: str = "", rows: int = 1) -> None:
        """Count rows that stay with another content; a row may be counted under several reasons."""
        self._add("changed", reason, example, rows)

    def made(self, reason: str, example: str = "", rows: int = 1) -> None:
        """Count rows that were not there before. A row is counted once, under one reason."""
        self._add("made", reason, example, rows)

    def effects(self) -> tuple[Effect, ...]:
        """What was counted, in the order in which the reasons first came up."""
        return tuple(
            Effect(fate, reason, rows, tuple(self._examples[fate, reason]))
            for (fate, reason), rows in self._counts.items()
        )

    def _add(self, fate: Fate, reason: str, example: str, rows: int) -> None:
        if rows:
            self._counts[fate, reason] = self._counts.get((fate, reason), 0) + rows
            kept = self._examples.setdefault((fate, reason), [])
            if example and len(kept) < EXAMPLES:
                short = example[: EXAMPLE_LENGTH - 1] + "…"
                kept.append(example if len(example) <= EXAMPLE_LENGTH else short)
