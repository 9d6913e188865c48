"""Models on disk as a merge sees them: which weights lie where, read from headers alone; imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftk.errors import UserError
from ftk.files import read_json

SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one entry, by the name that safetensors has for its type."""
FLOATING = ("F64", "F32", "F16", "BF16")
"""The types whose entries are merged; all others must be the same in every model."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ADAPTER_CONFIG, CONFIG, INDEX = "adapter_config.json", "config.json", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Stored:
    """One tensor in a file of safetensors: its type as these call it, its shape, where its bytes begin."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def rows(self) -> int:
        """How many rows it has; a scalar has one."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return math.prod(self.shape[1:]) * SIZES[self.dtype]

    @property
    def bytes(self) -> int:
        """The size of all of it."""
        return math.prod(self.shape) * SIZES[self.dtype]


@dataclass(frozen=True)
class Folder:
    """A model or an adapter on disk.

    Attributes:
        given: the path as the user wrote it.
        path: where its files are; of a run's folder that of its model.
        is_adapter: whether it is one.
        config: the model's, or the adapter's.
        tensors: by name, in the order in which they lie on the disk.
    """

    given: str
    path: Path
    is_adapter: bool
    config: Mapping[str, Any]
    tensors: Mapping[str, Stored] = field(repr=False)


def open_folder(given: str) -> Folder:
    """Read what a folder holds: its config, and the headers of its files of weights.

    Raises:
        UserError: it is not there, or holds no model in safetensors.
    """
    path = Path(given).expanduser()
    if not path.is_dir():
        hint = (
            "" if path.exists() else f"a model of the hub is downloaded first: hf download {given} --local-dir FOLDER"
        )
        raise UserError(f"{given}: {'is no folder' if path.exists() else 'there is no such folder'}", hint)
    if (path / "recipe.resolved.json").is_file() and not (path / CONFIG).is_file():
        path = path / "model"
        if not path.is_dir():
            raise UserError(f"{given}: the run has left no model yet", f"go on with it: ftk run {given}/recipe.toml")
    is_adapter = (path / ADAPTER_CONFIG).is_file() and not (path / CONFIG).is_file()
    config = ADAPTER_CONFIG if is_adapter else CONFIG
    if not (path / config).is_file():
        raise UserError(
            f"{given}: holds no {CONFIG} and no {ADAPTER_CONFIG}", "name the folder that a model was saved in"
        )
    table = read_json(path / config)
    tensors: dict[str, Stored] = {}
    for file in _files(path, given, is_adapter):
        tensors |= read_header(file)
    return Folder(given, path, is_adapter, table, tensors)


def read_header(file: Path) -> dict[str, Stored]:
    """What a file of safetensors holds.

    Raises:
        UserError: it is none, or is cut off.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ValueError("its header is not whole")
            table = json.loads(opened.read(length))
        table.pop("__metadata__", None)
        found = {name: _stored(file, told, 8 + length, size) for name, told in table.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: is no whole file of safetensors ({error})", "fetch it again") from error
    return dict(sorted(found.items(), key=lambda item: item[1].offset))


def _stored(file: Path, told: Mapping[str, Any], data: int, size: int) -> Stored:
    shape, (first, last) = tuple(map(int, told["shape"])), map(int, told["data_offsets"])
    if told["dtype"] not in SIZES:
        raise ValueError(f"it has the unknown type {told['dtype']}")
    found = Stored(file, told["dtype"], shape, data + first)
    if min((0, first, *shape)) < 0 or last - first != found.bytes or data + last > size:
        raise ValueError("it is cut off, or its header is wrong")
    return found


def _files(path: Path, given: str, is_adapter: bool) -> Iterator[Path]:
    """The files of weights, in order."""
    index, single = path / INDEX, path / ("adapter_model.safetensors" if is_adapter else "model.safetensors")
    if index.is_file() and not is_adapter:
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(it, str) and it == Path(it).name for it in names.values()):
            raise UserError(f"{index}: its `weight_map` does not name files of this folder", "fetch it again")
        for name in dict.fromkeys(names.values()):
            if not (path / name).is_file():
                raise UserError(f"{given}: {INDEX} names {name}, which is not there", "fetch it again")
            yield path / name
        return
    if single.is_file():
        yield single
        return
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
    if pickles:
        hint = "load it where you trust it, and save it with save_pretrained: that writes safetensors"
        raise UserError(f"{given}: {pickles[0]} is a pickle, which can run code when it is read; it is not", hint)
    raise UserError(f"{given}: holds no {single.name}", "weights are read from safetensors alone")
