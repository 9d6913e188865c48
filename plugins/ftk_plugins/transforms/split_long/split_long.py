"""The transform `split_long`: a row for each window of a long text, the other columns as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from ftk import UserError
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.rows import is_list, joined, named_columns, plain_text_column, rewritten, with_column
from ftk_plugins.transforms.split_long.options import SplitLongOptions
from ftk_plugins.transforms.words import word_spans


class SplitLong(Transform):
    """Cuts texts, or lists of words, that are longer than ``size``; the windows of one follow each other."""

    def __init__(self, options: SplitLongOptions) -> None:
        self.options = options
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        """The windows.

        Raises:
            UserError: a column is not there or not of the kind that is cut, or a row's lists are not equally long.
        """
        self._tally = Tally()
        column, beside, schema = self.options.column, self.options.beside, dataset.features.arrow_schema
        kinds = [schema.field(name).type for name in named_columns(dataset, [column, *beside], "split_long")]
        self._lists = is_list(kinds[0])
        if not self._lists and not beside:
            plain_text_column(dataset, column, "split_long")
        for name, kind in zip((column, *beside), kinds, strict=True):
            if beside and not is_list(kind):
                raise UserError(
                    f"`split_long` cuts lists of words with what stands beside them, and column `{name}` holds {kind}",
                    "name columns of lists, or leave `beside` out",
                )
        if self._lists and self.options.unit != "words":
            raise UserError(f"column `{column}` holds lists of words, which have no characters", "leave `unit` out")
        return rewritten(dataset, self._split, dataset.features)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _split(self, table: pa.Table, first: int) -> pa.Table:
        size, unit = self.options.size, self.options.unit
        names = (self.options.column, *self.options.beside)
        rows: list[int] = []
        windows: list[list[Any]] = [[] for _ in names]
        for row, values in enumerate(zip(*(table.column(name).to_pylist() for name in names), strict=True)):
            self._check_lengths(values, first + row)
            spans = self._spans(values[0]) if values[0] else []
            if len(spans) > 1:
                second = values[0][slice(*spans[1])]
                self._tally.changed(f"longer than {size} {unit}", joined((values[0],)))
                self._tally.made("further windows of longer rows", joined((second,)), len(spans) - 1)
            rows += [row] * max(len(spans), 1)
            for made, value in zip(windows, values, strict=True):
                made += [value[start:end] for start, end in spans] if len(spans) > 1 else [value]
        table = table.take(rows)
        for name, made in zip(names, windows, strict=True):
            table = with_column(table, name, made, table.schema.field(name).type)
        return table

    def _check_lengths(self, values: Sequence[Any], row: int) -> None:
        lengths = [len(value or ()) for value in values]
        for name, length in zip(self.options.beside, lengths[1:], strict=True):
            if length != lengths[0]:
                raise UserError(
                    f"row {row + 1}: column `{self.options.column}` holds {lengths[0]} words, column `{name}` {length}",
                    "mend the row: one entry for each word",
                )

    def _spans(self, value: str | list[Any]) -> list[tuple[int, int]]:
        """Where the windows begin and end; each has something new, and the last one ends where the value does."""
        size, overlap = self.options.size, self.options.overlap
        words = word_spans(value) if isinstance(value, str) and self.options.unit == "words" else None
        length = len(value) if words is None else len(words)
        if length <= size:
            return [(0, len(value))]
        found = [(start, min(start + size, length)) for start in range(0, length - overlap, size - overlap)]
        return found if words is None else [(words[start][0], words[end - 1][1]) for start, end in found]
