"""Encoded rows on disk, mapped into memory: one flat array for each feature, and where in it each row ends.

Beside a feature that is not 1-D lies the shape that it has in each row.
"""

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
"""Some rows by feature: all values one after the other, and the shape in each row, ``(rows, dimensions) int64``.

Where a row lacks the feature, its shape is all zeros.
"""


class EncodedRows(View):
    """Rows that :func:`write_rows` wrote. An item's arrays are read-only views into the mapped files.

    Attributes:
        digest: SHA-256 of all that the rows hold.
        lengths: positions of each row, ``(rows,) int64``.

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
            self._shapes = {
                name: _mapped(folder / f"{index}.shapes", np.int64).reshape(self._rows, dimensions)
                for index, (name, dimensions) in enumerate(facts["dimensions"].items())
                if dimensions != 1
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
                found = values[start:stop]
                features[name] = found.reshape(self._shapes[name][index]) if name in self._shapes else found
        return features

    @cached_property
    def lengths(self) -> np.ndarray:  # type: ignore[override]
        longest = np.zeros(self._rows, np.int64)
        for name, (_, ends) in self._columns.items():
            if name not in self._shapes:
                np.maximum(longest, np.diff(ends, prepend=0), out=longest)
        return np.maximum(longest, 1)


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
            if not isinstance(array, np.ndarray) or not array.ndim or not array.size or array.dtype.kind not in "iuf":
                told = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise RunFailed(
                    f"{who} encodes `{name}` as {told}, not as a numpy array of some numbers, of one dimension at least"
                )
            _hold_type(array, arrays[0].dtype, name, who)
            _hold_dimensions(array.ndim, arrays[0].ndim, name, who)
        none = (0,) * arrays[0].ndim
        shapes = np.array([row[name].shape if name in row else none for row in rows], np.int64)
        flat[name] = np.concatenate([array.reshape(-1) for array in arrays]), shapes
    return flat


def write_rows(folder: Path, pieces: Iterator[Flat], who: str) -> None:
    """Write rows, some at a time, for :class:`EncodedRows` to read.

    Raises:
        RunFailed: a feature changes its type, or the number of its dimensions.
    """
    rows, digest = 0, hashlib.sha256()
    types: dict[str, np.dtype] = {}
    dimensions: dict[str, int] = {}
    files: dict[str, dict[str, BinaryIO]] = {}
    totals: dict[str, int] = {}
    with ExitStack() as stack:
        for piece in pieces:
            count = len(next(iter(piece.values()))[1])
            for name, (values, shapes) in piece.items():
                if name not in types:
                    kinds = ("values", "ends") if shapes.shape[1] == 1 else ("values", "ends", "shapes")
                    places = {kind: folder / f"{len(types)}.{kind}" for kind in kinds}
                    files[name] = {kind: stack.enter_context(path.open("wb")) for kind, path in places.items()}
                    types[name], dimensions[name], totals[name] = values.dtype, shapes.shape[1], 0
                    for kind, width in zip(kinds[1:], (1, shapes.shape[1]), strict=False):
                        np.zeros(rows * width, np.int64).tofile(files[name][kind])  # the rows so far did without it
                _hold_type(values, types[name], name, who)
                _hold_dimensions(shapes.shape[1], dimensions[name], name, who)
            for name, into in files.items():
                nothing = np.empty(0, types[name]), np.zeros((count, dimensions[name]), np.int64)
                values, shapes = piece.get(name, nothing)
                ends = totals[name] + np.cumsum(shapes.prod(1))
                totals[name] = int(ends[-1])
                values.tofile(into["values"])
                ends.tofile(into["ends"])
                if "shapes" in into:
                    shapes.tofile(into["shapes"])
                for part in (shapes, values):
                    digest.update(part.data)
            rows += count
    features = {name: dtype.str for name, dtype in types.items()}
    facts = {"rows": rows, "features": features, "dimensions": dimensions, "digest": digest.hexdigest()}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _mapped(file: Path, dtype: Any) -> np.ndarray:
    return np.memmap(file, dtype, "r").view(np.ndarray)


def _hold_dimensions(found: int, expected: int, name: str, who: str) -> None:
    if found != expected:
        raise RunFailed(f"{who} encodes `{name}` in one row with {expected} dimensions and in another with {found}")


def _hold_type(array: np.ndarray, expected: np.dtype, name: str, who: str) -> None:
    if array.dtype != expected:
        raise RunFailed(f"{who} encodes `{name}` in one row as {expected} and in another as {array.dtype}")
