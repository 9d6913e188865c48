"""What transforms share: finding columns, reading texts in batches, choosing rows, writing changed ones to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features

from ftk import UserError, did_you_mean

BATCH_ROWS, BATCH_BYTES = 1000, 16 * 2**20
"""A batch has at most so many rows, and about so many bytes."""

NO_TEXT = frozenset({"role", "from", "type"})
"""Keys of a chat message whose texts are no language."""


def named_columns(dataset: Dataset, names: Sequence[str], who: str) -> list[str]:
    """``names``, which must all be columns.

    Raises:
        UserError: one is not there.
    """
    for name in names:
        if name not in dataset.column_names:
            hint = did_you_mean(name, dataset.column_names)
            raise UserError(f"`{who}` finds no column `{name}`", hint)
    return list(names)


def text_columns(dataset: Dataset, names: Sequence[str] | None, who: str) -> list[str]:
    """The named columns, or every column with text in it, at whatever depth.

    Raises:
        UserError: a named column is not there or holds no text, or no column does.
    """
    schema = dataset.features.arrow_schema
    if names is None:
        found = [name for name in dataset.column_names if _holds_text(schema.field(name).type)]
        if not found:
            raise UserError(f"`{who}` finds no column with text", f"the columns are {_listed(dataset.column_names)}")
        return found
    for name in named_columns(dataset, names, who):
        if not _holds_text(schema.field(name).type):
            raise UserError(
                f"`{who}` works on text, and column `{name}` holds {schema.field(name).type}",
                "name columns of text with `columns`",
            )
    return list(names)


def plain_text_column(dataset: Dataset, name: str, who: str) -> str:
    """``name``, which must be a column whose values are texts, not lists of them.

    Raises:
        UserError: it is not there, or holds something else.
    """
    kind = dataset.features.arrow_schema.field(named_columns(dataset, [name], who)[0]).type
    if not _is_string(kind):
        raise UserError(f"`{who}` works on one text a row, and column `{name}` holds {kind}", "name a column of text")
    return name


def batches(dataset: Dataset, columns: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """The values of some columns, batch by batch, a tuple for each row."""
    chosen = dataset.select_columns(list(columns)).with_format("arrow")
    for table in chosen.iter(batch_size(dataset)):
        yield list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))


def texts_in(value: Any) -> Iterator[str]:
    """The texts of a value, at whatever depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in NO_TEXT:
                yield from texts_in(item)


def joined(row: tuple[Any, ...]) -> str:
    """The texts of some values as one text, a line for each."""
    return "\n".join(text for value in row for text in texts_in(value))


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A value whose texts were changed, at whatever depth."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [with_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: item if key in NO_TEXT else with_texts(item, change) for key, item in value.items()}
    return value


def picked(dataset: Dataset, keep: np.ndarray) -> Dataset:
    """The rows that ``keep``, ``(rows,) bool``, marks: an index of them, no copy."""
    return dataset if keep.all() else dataset.select(np.flatnonzero(keep))


def rewritten(dataset: Dataset, change: Callable[[pa.Table, int], pa.Table], features: Features) -> Dataset:
    """The rows as ``change`` leaves them, which takes a batch and the number of its first row.

    They are written to a file that has no name any more and is mapped into memory, so that memory does not grow with
    them, and the file goes when they do.

    Args:
        dataset: the rows.
        change: may return another number of rows.
        features: of what it returns.
    """
    schema = features.arrow_schema
    size = batch_size(dataset)
    with tempfile.NamedTemporaryFile(prefix="ftk-rows-") as file:
        with pa.OSFile(file.name, "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
            for number, table in enumerate(dataset.with_format("arrow").iter(size)):
                out.write_table(change(table, number * size).select(schema.names).cast(schema))
        table = pa.ipc.open_stream(pa.memory_map(file.name)).read_all()
        # Without one, `datasets` would make a fingerprint of a copy of all rows.
        return Dataset(table, fingerprint=uuid4().hex[:16])


def with_column(table: pa.Table, name: str, values: Any, kind: pa.DataType) -> pa.Table:
    """A batch in which a column has these values, where it was or at the end.

    Raises:
        UserError: a text among them has half a character, which no file can hold.
    """
    try:
        column = pa.array(values, type=kind)
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"a text for column `{name}` would hold {half!r}, which is half a character") from None
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def batch_size(dataset: Dataset) -> int:
    """How many rows make a batch."""
    average = dataset.data.nbytes / max(dataset.data.num_rows, 1)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(average, 1))))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds a list in each row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _holds_text(kind: pa.DataType) -> bool:
    if is_list(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        # An image or a sound is bytes and a path.
        return not any(field.type == pa.binary() for field in fields) and any(_holds_text(f.type) for f in fields)
    return _is_string(kind)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
