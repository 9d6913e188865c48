"""The transform `few_shot`: draws as many rows of each class, each row by a lot of its own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from ftk import UserError
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.few_shot.options import FewShotOptions
from ftk_plugins.transforms.rows import batches, named_columns, picked


class FewShot(Transform):
    """Keeps ``per_class`` rows of each class, in their order.

    Each row's lot is a hash of the seed and its number, so that rows added to the data leave most of
    the draw as it was.
    """

    def __init__(self, options: FewShotOptions) -> None:
        self.options = options
        self._tally = Tally()

    def training_only(self) -> bool:
        return True

    def apply(self, dataset: Dataset) -> Dataset:
        """Raises ``UserError`` where a class has too few rows, or a value is no class."""
        self._tally = Tally()
        classes = self._classes(dataset)
        keep = np.zeros(len(dataset), dtype=bool)
        for name, rows in classes.items():
            chosen = sorted(rows, key=self._lot)[: self.options.per_class]
            shown = self._shown(dataset, name)
            if len(rows) < self.options.per_class and self.options.scarce != "keep":
                if self.options.scarce == "error":
                    raise UserError(
                        f"class `{shown}` of column `{self.options.column}` has {len(rows)} rows, "
                        f"and `per_class` asks for {self.options.per_class}",
                        'lower `per_class`, or write scarce = "keep" (or "drop")',
                    )
                self._tally.dropped(f"of class `{shown}`, which has too few", rows=len(rows))
                continue
            keep[chosen] = True
            self._tally.dropped(f"of class `{shown}`, not drawn", rows=len(rows) - len(chosen))
        return picked(dataset, keep)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _classes(self, dataset: Dataset) -> dict[Any, list[int]]:
        """The numbers of the rows of each class."""
        name = named_columns(dataset, [self.options.column], "few_shot")[0]
        classes: dict[Any, list[int]] = defaultdict(list)
        number = 0
        for rows in batches(dataset, [name]):
            for (value,) in rows:
                if value is None:
                    self._tally.dropped("without a class")
                elif isinstance(value, str | int):
                    classes[value].append(number)
                else:
                    raise UserError(
                        f"column `{name}` holds {type(value).__name__} values, which are no classes",
                        "name a column of texts or whole numbers with `column`",
                    )
                number += 1
        return classes

    def _lot(self, row: int) -> bytes:
        return hashlib.sha256(f"{self.options.seed} {row}".encode()).digest()

    def _shown(self, dataset: Dataset, value: Any) -> str:
        feature = dataset.features[self.options.column]
        name = str(feature.int2str(value)) if isinstance(feature, ClassLabel) else str(value)
        return name if len(name) <= 60 else f"{name[:59]}…"
