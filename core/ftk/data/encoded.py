"""Encoded rows on disk, mapped into memory: one flat array for each feature, and where in it each row ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ftk.errors import RunFailed
from ftk.parts import Features
from ftk.parts.views import View

FACTS = "facts.json"

Flat = dict[str, tuple[np.ndarray, np.ndarray]]
"""Some rows by feature: all values one after the other, and the length of each row; 0 where a row lacks it."""


class EncodedRows(View):
    """Rows that :func:`write_rows` wrote. An item's arrays are read-only views into the mapped files.

    Attributes:
        digest: SHA-256 of all that the rows hold.
        lengths: the longest feature of each row, ``(rows,) int64``.

    Raises:
        RunFailed: the files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            self.digest = facts["digest"]
            self._rows: int = facts["rows"]
            self._columns = {
                name: (_mapped(folder / f"{index}.values", dtype), _mapped(folder / f"{index}.ends", np.int64))
                for index, (name, dtype) in enumerate(facts["features"].items())
            }
            whole = all(len(ends) == self._rows and ends[-1] == len(values) for values, ends in self._columns.values())
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise RunFailed(f"{folder}: these encoded rows are damaged\n  `ftk doctor --empty-cache` deletes them")

    def __len__(self) -> int:
        return self._rows

    def item(self, index: int) -> Features:
        features = {}
        for name, (values, ends) in self._columns.items():
            start, stop = int(ends[index - 1]) if index else 0, int(ends[index])
            if stop > start:
                features[name] = values[start:stop]
        return features

    @cached_property
    def lengths(self) -> np.ndarray:  # type: ignore[override]
        longest = np.zeros(self._rows, np.int64)
        for _, ends in self._columns.values():
            np.maximum(longest, np.diff(ends, prepend=0), out=longest)
        return longest


def flatten(rows: Sequence[Features], who: str) -> Flat:
    """Lay some encoded rows out by feature.

    Args:
        rows: what an objective gave.
        who: names it in messages.

    Raises:
        RunFailed: a feature is not what an objective may give.
    """
    flat: Flat = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        arrays = [row[name] for row in rows if name in row]
        for array in arrays:
            if not isinstance(array, np.ndarray) or array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
                told = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise RunFailed(f"{who} encodes `{name}` as {told}, not as a 1-D numpy array of some numbers")
            _hold_type(array, arrays[0].dtype, name, who)
        lengths = np.array([len(row[name]) if name in row else 0 for row in rows], np.int64)
        flat[name] = np.concatenate(arrays), lengths
    return flat


def write_rows(folder: Path, pieces: Iterator[Flat], who: str) -> None:
    """Write rows, some at a time, for :class:`EncodedRows` to read.

    Raises:
        RunFailed: a feature changes its type.
    """
    rows, digest = 0, hashlib.sha256()
    types: dict[str, np.dtype] = {}
    files: dict[str, tuple[BinaryIO, BinaryIO]] = {}
    totals: dict[str, int] = {}
    with ExitStack() as stack:
        for piece in pieces:
            count = len(next(iter(piece.values()))[1])
            for name, (values, _) in piece.items():
                if name not in types:
                    paths = (folder / f"{len(types)}.{kind}" for kind in ("values", "ends"))
                    files[name] = tuple(stack.enter_context(path.open("wb")) for path in paths)  # type: ignore[assignment]
                    types[name], totals[name] = values.dtype, 0
                    np.zeros(rows, np.int64).tofile(files[name][1])  # the rows so far did without it
                _hold_type(values, types[name], name, who)
            for name, (into, ends_into) in files.items():
                values, lengths = piece.get(name, (np.empty(0, types[name]), np.zeros(count, np.int64)))
                ends = totals[name] + np.cumsum(lengths)
                totals[name] = int(ends[-1])
                values.tofile(into)
                ends.tofile(ends_into)
                for part in (lengths, values):
                    digest.update(part.data)
            rows += count
    features = {name: dtype.str for name, dtype in types.items()}
    facts = {"rows": rows, "features": features, "digest": digest.hexdigest()}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _mapped(file: Path, dtype: Any) -> np.ndarray:
    return np.memmap(file, dtype, "r").view(np.ndarray)


def _hold_type(array: np.ndarray, expected: np.dtype, name: str, who: str) -> None:
    if array.dtype != expected:
        raise RunFailed(f"{who} encodes `{name}` in one row as {expected} and in another as {array.dtype}")
