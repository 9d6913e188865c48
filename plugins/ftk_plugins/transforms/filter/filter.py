"""The transform `filter`: each row goes by the first rule that it breaks; C4's lines are chosen before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.filter import c4, gopher
from ftk_plugins.transforms.filter.limits import Rule, limits
from ftk_plugins.transforms.filter.options import FilterOptions
from ftk_plugins.transforms.filter.passage import Passage
from ftk_plugins.transforms.rows import (
    batches,
    joined,
    picked,
    rewritten,
    text_columns,
    with_column,
    with_texts,
)

RULES: dict[str, Rule] = {"gopher_quality": gopher.quality, "gopher_repetition": gopher.repetition}
"""The rules of the literature that choose among whole rows."""


class Filter(Transform):
    """Keeps rows that break none of the rules; the texts of a row's columns count as one, a line for each."""

    def __init__(self, options: FilterOptions) -> None:
        self.options = options
        self._rules = limits(options) + [rule for name, rule in RULES.items() if name in options.rules]
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        self._tally = Tally()
        columns = text_columns(dataset, self.options.columns, "filter")
        if "c4" in self.options.rules:
            return rewritten(dataset, partial(self._choose_lines, columns), dataset.features)
        keep = [self._stays(joined(row), self._rules) for rows in batches(dataset, columns) for row in rows]
        return picked(dataset, np.array(keep, dtype=bool))

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _stays(self, text: str, rules: Sequence[Rule], shown: str | None = None) -> bool:
        """Whether a text breaks no rule; the first that it breaks is told, with the text or with ``shown``."""
        passage = Passage(text)
        reason = next((reason for rule in rules if (reason := rule(passage))), None)
        if reason is not None:
            self._tally.dropped(reason, text if shown is None else shown)
        return reason is None

    def _choose_lines(self, columns: list[str], table: pa.Table, first: int) -> pa.Table:
        """The rows that stay, without the lines that C4 leaves out; the other rules judge what is left of a row."""
        before = list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))
        after = [tuple(with_texts(value, c4.kept_lines) for value in row) for row in before]
        keep = []
        for old, new in zip(before, after, strict=True):
            whole = joined(old)
            stays = self._stays(whole, [c4.page]) and self._stays(joined(new), [c4.sentences, *self._rules], whole)
            if stays and new != old:
                self._tally.changed("with lines that are no sentences (c4)", whole)
            keep.append(stays)
        for index, name in enumerate(columns):
            table = with_column(table, name, [row[index] for row in after], table.schema.field(name).type)
        return table.filter(pa.array(keep, type=pa.bool_()))
