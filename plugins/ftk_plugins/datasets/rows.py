"""What sources of rows share: renamed columns, a limit, and splits drawn by a seed."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from functools import cached_property
from importlib.util import find_spec

from datasets import Dataset

from ftk import UserError, did_you_mean
from ftk.parts import DatasetSource, Split
from ftk_plugins.datasets.chat import as_messages
from ftk_plugins.datasets.row_options import RowOptions


class DividedRows(DatasetSource):
    """One set of rows, divided by fractions where the options give some."""

    def __init__(self, options: RowOptions) -> None:
        self.row_options = options

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the rows come from, for messages."""

    @abstractmethod
    def read(self) -> Dataset:
        """All rows as they are stored. Raises ``UserError`` where they cannot be read."""

    def splits(self) -> tuple[Split, ...]:
        fractions = self.row_options.fractions
        return ("train", *fractions) if fractions else ()

    def rows(self, split: Split) -> Dataset:
        if not self.row_options.fractions:
            return self._all
        if split not in self._division:
            raise UserError(
                f"{self.place} sets no rows aside for {split}",
                f"set `{split}_fraction`, or name a data set for it",
            )
        return self._all.select(self._division[split])

    @cached_property
    def _all(self) -> Dataset:
        return shaped(self.read(), self.row_options, self.place)

    @cached_property
    def _division(self) -> dict[Split, list[int]]:
        return divide(len(self._all), self.row_options, self.place)


def need_pillow() -> None:
    """Raises ``UserError`` where there is nothing to read images with."""
    if find_spec("PIL") is None:
        raise UserError("images need Pillow, which is not installed", 'pip install "finetune-toolkit[images]"')


def shaped(dataset: Dataset, options: RowOptions, place: str) -> Dataset:
    """The rows under the names and up to the limit that the options ask for, chats as `messages`.

    Raises:
        UserError: a column to rename is not there, or a chat cannot be read.
    """
    for name in options.columns.values():
        if name not in dataset.column_names:
            hint = did_you_mean(name, dataset.column_names)
            raise UserError(f"{place} has no column `{name}`, which `columns` names", hint)
    replaced = [name for name in options.columns if name in dataset.column_names]
    dataset = dataset.remove_columns([name for name in replaced if name not in options.columns.values()])
    dataset = dataset.rename_columns({old: new for new, old in options.columns.items()})
    if options.limit is not None and options.limit < len(dataset):
        dataset = dataset.select(range(options.limit))
    return as_messages(dataset, place)


def divide(count: int, options: RowOptions, place: str) -> dict[Split, list[int]]:
    """Which of ``count`` rows each split has, in their order; a pure function of the count and the seed.

    Each row draws a lot from a hash of the seed and its own number, so that rows appended to the data leave
    nearly all others where they were. A fraction above 0 gets one row at least.

    Raises:
        UserError: no row is left for training.
    """
    drawn = sorted(range(count), key=lambda row: hashlib.sha256(f"{options.seed} {row}".encode()).digest())
    division: dict[Split, list[int]] = {}
    for split, fraction in options.fractions.items():
        share = max(1, round(count * fraction))
        division[split], drawn = sorted(drawn[:share]), drawn[share:]
    if not drawn:
        raise UserError(f"{place} has {count} rows, too few to be divided", "leave out a fraction, or add rows")
    return {"train": sorted(drawn), **division}
