"""Labels as rows have them, names or numbers of names, and what training rows tell of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftk import UserError, did_you_mean
from ftk.parts import Row
from ftk_plugins.objectives.label_options import ClassWeights
from ftk_plugins.objectives.tokens import columns_of


class Labels:
    """The labels in the order of the model's outputs.

    A row names a label, or gives its number in this order, from 0, where no label is written as a number.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._index = {name: index for index, name in enumerate(self.names)}
        self._numbered = not any(_is_whole(name) for name in self.names)

    def index(self, value: Any) -> int:
        """The number of a row's label.

        Raises:
            UserError: it is none of the labels.
        """
        name = written(value)
        if name in self._index:
            return self._index[name]
        if self._numbered and isinstance(value, int | float) and _is_whole(name) and 0 <= int(name) < len(self.names):
            return int(name)
        shown = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        raise UserError(
            f"the label `{name}` is none of the training rows' or the objective's `labels`: {shown}",
            did_you_mean(name, self.names) or "name every label in the objective's `labels`, or mend the row",
        )


def written(value: Any) -> str:
    """A label as text; raises ``UserError`` for what is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as a column of whole numbers is read where one is missing
    if isinstance(value, float):
        raise UserError(f"{value!r} is no label", 'kind = "regression" learns numbers')
    if isinstance(value, str | int) and str(value).strip():
        return str(value)
    raise UserError(f"{value!r:.60} is no label", "a label is a text or a whole number")


def names_of(rows: Any, column: str) -> tuple[str, ...]:
    """The labels of training rows in order: as the data set names them, else numbers or texts sorted.

    Args:
        rows: a ``datasets.Dataset``.
        column: holds a label, or a list of labels, in each row.
    """
    declared = rows.features.get(column)
    declared = getattr(declared, "feature", declared)  # of a list, what stands in it
    if getattr(declared, "names", None):
        return tuple(declared.names)
    found = {written(value) for value in _values(rows[column]) if value is not None}
    return tuple(sorted(found, key=int if all(map(_is_whole, found)) else None))


def known_labels(rows: Any, column: str, least: int) -> tuple[str, ...]:
    """:func:`names_of` a column that must be there and hold so many labels at least.

    Raises:
        UserError: it is not, or does not.
    """
    need_column(rows, column)
    names = names_of(rows, column)
    if len(names) < least:
        raise UserError(
            f"column `{column}` holds {f'the label `{names[0]}` alone' if names else 'no label'}",
            "there is nothing to tell apart; name all labels in the objective's `labels`",
        )
    return names


def need_column(rows: Any, column: str, option: str = "label") -> None:
    """Raise ``UserError`` where the rows have no such column, which an option of the objective names."""
    if column not in rows.column_names:
        raise UserError(
            f"there is no column `{column}`; there are {', '.join(rows.column_names)}",
            f"name the column with the objective's `{option}`, or map it with the data set's `columns`",
        )


def present(row: Row, column: str, option: str = "label") -> Any:
    """What a row has in a column that an option of the objective names. Raises ``UserError`` where that is nothing."""
    value = row.get(column)
    if value is None:
        raise UserError(
            f"there is nothing in column `{column}`; the row has {columns_of(row)}",
            f"name the column with the objective's `{option}`, or map it with the data set's `columns`",
        )
    return value


def target_of(row: Row, column: str, labels: Labels) -> np.ndarray:
    """The number of a row's label, ``(1,) int32``. Raises ``UserError`` where it has none, or another."""
    return np.array([labels.index(present(row, column))], np.int32)


def weights_of(
    chosen: Mapping[str, float] | str | None, rows: Any, column: str, names: Sequence[str], several: bool = False
) -> Mapping[str, float] | None:
    """The weights of labels that ``class_weights`` chooses, those of ``balanced`` from the training rows.

    Raises:
        UserError: they name another label; or ``balanced`` cannot tell one, see :func:`balanced`.
    """
    if isinstance(chosen, str):
        return balanced(rows, column, Labels(names), several)
    if chosen and (unknown := [name for name in chosen if name not in names]):
        raise UserError(
            f"the objective's `class_weights` names {', '.join(unknown)}; the labels are {', '.join(names)}",
            "mend the names",
        )
    return chosen


def balanced(rows: Any, column: str, labels: Labels, several: bool) -> dict[str, float]:
    """Weights that make up for rare labels.

    Where each place has one label (a row, or a word of it) ``places / (labels · places of the label)``, so that all
    labels weigh alike and a place 1 on average; with ``several`` in a row, ``rows without / rows with`` for the rows
    that have it.

    Raises:
        UserError: no training row has one of the labels, or with several, every row has it.
    """
    rows_with = Counter(labels.index(value) for value in _values(rows[column]) if value is not None)
    weights = {}
    for index, name in enumerate(labels.names):
        count = rows_with[index]
        if not count or (several and count == len(rows)):
            raise UserError(
                f'class_weights = "balanced": {"every" if count else "no"} training row has the label `{name}`',
                "give the weights by name, or leave the label out of `labels`",
            )
        weights[name] = (len(rows) - count) / count if several else rows_with.total() / (len(labels.names) * count)
    return weights


def in_order(weights: ClassWeights, labels: Labels) -> Tensor | None:
    """Weights in the order of the labels, 1 where none is given: ``(labels,) float32``; None: all weigh alike."""
    if not isinstance(weights, dict):
        return None
    return torch.tensor([weights.get(name, 1.0) for name in labels.names], dtype=torch.float32)


def _values(column: Iterable[Any]) -> Iterator[Any]:
    for value in column:
        yield from value if isinstance(value, list) else [value]


def _is_whole(name: str) -> bool:
    return name.lstrip("-").isdecimal()
