"""The transform `split_long`: a row for each window of a long text, the other columns as they are."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from datasets import Dataset

from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.rows import plain_text_column, rewritten, with_column
from ftk_plugins.transforms.split_long.options import SplitLongOptions
from ftk_plugins.transforms.words import word_spans


class SplitLong(Transform):
    """Cuts texts that are longer than ``size``; the windows of a text follow each other."""

    def __init__(self, options: SplitLongOptions) -> None:
        self.options = options
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        self._tally = Tally()
        plain_text_column(dataset, self.options.column, "split_long")
        return rewritten(dataset, self._split, dataset.features)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _split(self, table: pa.Table, first: int) -> pa.Table:
        name, size, unit = self.options.column, self.options.size, self.options.unit
        rows: list[int] = []
        windows: list[str | None] = []
        for row, text in enumerate(table.column(name).to_pylist()):
            cut = list(self._windows(text)) if text else []
            if len(cut) > 1:
                self._tally.changed(f"longer than {size} {unit}", text)
                self._tally.made("further windows of longer rows", cut[1], len(cut) - 1)
            rows += [row] * max(len(cut), 1)
            windows += cut or [text]
        return with_column(table.take(rows), name, windows, table.schema.field(name).type)

    def _windows(self, text: str) -> Iterator[str]:
        """The windows of a text; each has something new, and the last one ends where the text does."""
        size, overlap = self.options.size, self.options.overlap
        spans = word_spans(text) if self.options.unit == "words" else None
        length = len(text) if spans is None else len(spans)
        if length <= size:
            yield text
            return
        for start in range(0, length - overlap, size - overlap):
            end = min(start + size, length)
            yield text[start:end] if spans is None else text[spans[start][0] : spans[end - 1][1]]
