"""The transform `map_columns`: first new names, then constants, then the choice of columns."""

from __future__ import annotations

import pyarrow as pa
from datasets import Dataset, Features, Value

from ftk import UserError, did_you_mean
from ftk.parts import Transform
from ftk_plugins.transforms.map_columns.options import MapColumnsOptions
from ftk_plugins.transforms.rows import named_columns, rewritten

KINDS = {bool: "bool", int: "int64", float: "float64", str: "string"}
"""The type of a column for each type of constant."""


class MapColumns(Transform):
    """Changes which columns there are, and what they are called; no row changes but by constants."""

    def __init__(self, options: MapColumnsOptions) -> None:
        self.options = options

    def apply(self, dataset: Dataset) -> Dataset:
        dataset = self._renamed(dataset)
        if self.options.constants:
            dataset = self._filled(dataset)
        if self.options.keep is not None:
            return dataset.select_columns(named_columns(dataset, self.options.keep, "map_columns"))
        dropped = named_columns(dataset, self.options.drop, "map_columns")
        if set(dropped) == set(dataset.column_names):
            raise UserError("`drop` leaves no column", "keep one that the objective reads")
        return dataset.remove_columns(dropped)

    def _renamed(self, dataset: Dataset) -> Dataset:
        names = self.options.rename
        for old in names.values():
            if old not in dataset.column_names:
                hint = did_you_mean(old, dataset.column_names)
                raise UserError(f"`rename` finds no column `{old}`", hint)
        for new in names:
            if new in dataset.column_names and new not in names.values():
                raise UserError(
                    f"`rename` makes a second column `{new}`",
                    f'rename the other one too, or drop it in a `map_columns` before: drop = ["{new}"]',
                )
        return dataset.rename_columns({old: new for new, old in names.items()}) if names else dataset

    def _filled(self, dataset: Dataset) -> Dataset:
        values = self.options.constants
        features = Features({**dataset.features, **{name: Value(KINDS[type(v)]) for name, v in values.items()}})

        def filled(table: pa.Table, first: int) -> pa.Table:
            for name, value in values.items():
                column = pa.repeat(pa.scalar(value), table.num_rows)
                place = table.column_names.index(name) if name in table.column_names else table.num_columns
                table = table.remove_column(place) if place < table.num_columns else table
                table = table.add_column(place, name, column)
            return table

        return rewritten(dataset, filled, features)
