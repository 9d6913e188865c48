"""The transform `select`: keeps the rows whose column has one of some values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from ftk import UserError, did_you_mean
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.rows import batches, named_columns, picked
from ftk_plugins.transforms.select.options import SelectOptions


class Select(Transform):
    """Keeps rows by one value each, compared as text: ``3`` and ``"3"`` are the same."""

    def __init__(self, options: SelectOptions) -> None:
        self.options = options
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        """Raises ``UserError`` where no row has one of the values, or the column holds something else."""
        self._tally = Tally()
        name = named_columns(dataset, [self.options.column], "select")[0]
        feature = dataset.features[name]
        names = feature.names if isinstance(feature, ClassLabel) else None
        found = np.array([_told(value, names, name) for rows in batches(dataset, [name]) for (value,) in rows], object)
        seen = Counter(found.tolist())
        wanted = [_told(value, names if isinstance(value, int) else None, name) for value in self.options.values]
        for value in wanted:
            if not seen[value]:
                near = did_you_mean(value, [other for other in seen if other])
                raise UserError(f"no row has `{value}` in column `{name}`", near)
        keep = np.isin(found, wanted)
        for value, count in seen.items():
            if value not in wanted:
                self._tally.dropped(f"with `{value:.60}`" if value else "without a value", rows=count)
        return picked(dataset, keep)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()


def _told(value: Any, names: list[str] | None, column: str) -> str:
    """A value as text, of a class its name; nothing for none."""
    if value is None or (names is not None and value == -1):
        return ""
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise UserError(
        f"column `{column}` holds {type(value).__name__} values, which `select` does not compare",
        "name a column of texts or whole numbers with `column`",
    )
