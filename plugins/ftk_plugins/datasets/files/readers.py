"""One reader for each file format: a file becomes an Arrow table, or an error that names the line."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from ftk import UserError
from ftk_plugins.datasets.files.options import FilesOptions

FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".txt": "txt", ".md": "txt",
}  # fmt: skip
"""The format that each suffix stands for."""

OPTION_OF_FORMAT = {"json": "field", "csv": "delimiter", "txt": "text_rows"}
"""The option that only one format has."""

_ROWS_AT_A_TIME = 10_000
_BLOCK = 16 * 2**20
_LARGEST_CELL = 2**31 - 1

Numbered = tuple[int, Any]
"""A value with the number of the line or row that it comes from, from 1."""


def read_jsonl(file: Path, options: FilesOptions) -> pa.Table:
    """A JSON object a line; blank lines are passed over."""
    with _opened(file, options) as lines:
        numbered = _parsed_lines(lines, file)
        head = list(islice(numbered, _ROWS_AT_A_TIME))
        table = _table(iter(head), file, "line")
        if len(head) < _ROWS_AT_A_TIME:
            return table
        fast = _read_like(table.schema, file, options)
        return _table(chain(head, numbered), file, "line") if fast is None else fast


def read_json(file: Path, options: FilesOptions) -> pa.Table:
    """A list of objects, an object that holds such a list under ``field``, or an object a line."""
    with _opened(file, options) as opened:
        text = opened.read()
    try:
        data = _parsed(text, str(file)) if text.strip() else []
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and options.field is None and text.lstrip().startswith("{"):
            return _table(_parsed_lines(text.split("\n"), file), file, "line")
        raise UserError(f"{file}, line {error.lineno}: no valid JSON: {error.msg}", "mend or remove the row") from None
    if options.field is not None:
        if not isinstance(data, dict) or options.field not in data:
            raise UserError(f"{file} has no key `{options.field}`, which `field` names", _keys(data))
        data = data[options.field]
    if not isinstance(data, list):
        raise UserError(
            f"{file} holds {_kind(data)}, where a list of rows is needed",
            'name the key that holds the rows with `field`, or write `format = "jsonl"` for a row a line; '
            + _keys(data),
        )
    return _table(enumerate(data, start=1), file, "row")


def read_csv(file: Path, options: FilesOptions) -> pa.Table:
    """A header and rows of cells; every cell is text, so that "007" and "NA" stay what they are."""
    csv.field_size_limit(_LARGEST_CELL)
    delimiter = options.delimiter or ("\t" if ".tsv" in file.suffixes else ",")
    with _opened(file, options) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            rows = []
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise UserError(
                        f"{file}, line {reader.line_num} has {len(cells)} cells, the header {len(header)}",
                        "put quotes around a cell that holds the delimiter, or name another `delimiter`",
                    )
                if cells:
                    rows.append(cells)
        except csv.Error as error:
            raise UserError(f"{file}, line {reader.line_num}: no valid CSV: {error}", "mend the quotes") from None
    if len(set(header)) < len(header) or not all(name.strip() for name in header):
        raise UserError(f"{file}: the header has an empty name, or one twice", "give each column its own name")
    columns = zip(*rows, strict=True) if rows else [[] for _ in header]
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in zip(header, columns, strict=True)})


def read_parquet(file: Path, options: FilesOptions) -> pa.Table:
    """A Parquet file."""
    try:
        table: pa.Table = pyarrow.parquet.read_table(file)
        return table
    except pa.ArrowInvalid as error:
        raise UserError(f"{file} is no readable Parquet file: {error}", "write it anew") from None


def read_txt(file: Path, options: FilesOptions) -> pa.Table:
    """Plain text in the column ``text``; rows without text are passed over."""
    with _opened(file, options) as opened:
        text = opened.read()
    if options.text_rows == "file":
        parts = [text]
    elif options.text_rows == "paragraph":
        parts = [part.strip("\n") for part in re.split(r"\n(?:[^\S\n]*\n)+", text)]
    else:
        parts = text.split("\n")
    return pa.table({"text": pa.array([part for part in parts if part.strip()], pa.string())})


READERS: dict[str, Callable[[Path, FilesOptions], pa.Table]] = {
    "jsonl": read_jsonl, "json": read_json, "csv": read_csv, "parquet": read_parquet, "txt": read_txt,
}  # fmt: skip
"""The reader of each format."""


def _opened(file: Path, options: FilesOptions) -> IO[str]:
    """The file as text, unpacked if its name ends in ``.gz``, without a byte-order mark."""
    encoding = "utf-8-sig" if options.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else options.encoding
    newline = "" if file.suffix.lower() in (".csv", ".tsv") else None
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding=encoding, newline=newline)
    return file.open(encoding=encoding, newline=newline)


def _parsed_lines(lines: Iterable[str], file: Path) -> Iterator[Numbered]:
    for number, line in enumerate(lines, start=1):
        if not line.isspace() and line:
            try:
                yield number, _parsed(line, f"{file}, line {number}")
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{file}, line {number}: no valid JSON: {error.msg} at column {error.colno}",
                    "each line is one object in braces; mend or remove the line",
                ) from None


def _read_like(schema: pa.Schema, file: Path, options: FilesOptions) -> pa.Table | None:
    """All rows by Arrow's own reader, which is several times as fast, if every row is like the first of them.

    None where one is not, or is anything that this reader may read in another way or has no good words for.
    """
    if file.suffix.lower() == ".gz" or options.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        return None
    strict = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        table = pyarrow.json.read_json(file, pyarrow.json.ReadOptions(block_size=_BLOCK), strict)
        table.validate(full=True)  # that its texts are texts
    except pa.ArrowException:
        return None
    with file.open("rb") as opened:
        lines = sum(block.count(b"\n") for block in iter(lambda: opened.read(_BLOCK), b""))
        opened.seek(-1, os.SEEK_END)
        lines += opened.read() != b"\n"
    # It also takes two objects in one line, and an object over several.
    return table if table.num_rows == lines else None


def _parsed(text: str, place: str) -> Any:
    """A JSON value that Arrow can hold.

    Raises:
        json.JSONDecodeError: it is no JSON.
        UserError: it is JSON, and nothing that could be read or stored.
    """
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError:
        raise
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise UserError(f"{place}: {half} is half of a character", "mend or remove the row") from None
    except RecursionError:
        raise UserError(f"{place}: lists or objects are nested too deeply", "mend or remove the row") from None
    except ValueError as error:
        raise UserError(f"{place}: {error}", "write the number as text, or remove the row") from None


def _table(rows: Iterator[Numbered], file: Path, unit: str) -> pa.Table:
    """Rows as a table; a column that a row lacks is empty there."""
    tables = []
    while numbered := list(islice(rows, _ROWS_AT_A_TIME)):
        for number, row in numbered:
            if not isinstance(row, dict):
                raise UserError(f"{file}, {unit} {number} holds {_kind(row)}, where an object in braces is needed")
        names = dict.fromkeys(name for _, row in numbered for name in row)
        tables.append(pa.table({name: _column(name, numbered, file, unit) for name in names}))
    try:
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise UserError(f"{file}: rows do not fit together: {error}", "make each column of one type") from None


def _column(name: str, rows: list[Numbered], file: Path, unit: str) -> pa.Array:
    try:
        return pa.array([row.get(name) for _, row in rows])
    except (pa.ArrowException, OverflowError) as error:
        kinds: dict[str, int] = {}
        for number, row in rows:
            if row.get(name) is not None:
                kinds.setdefault(_kind(row[name]), number)
        if len(kinds) < 2:
            raise UserError(f"{file}: column `{name}`: {error}", "make the column of one type") from None
        (first, _), (other, number), *_ = kinds.items()
        raise UserError(
            f"{file}, {unit} {number}: column `{name}` holds {other}, and {first} before",
            "make the column of one type",
        ) from None


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "null")


def _keys(data: Any) -> str:
    return f"its keys are {', '.join(map(repr, data))}" if isinstance(data, dict) else ""
