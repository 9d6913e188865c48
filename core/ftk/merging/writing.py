"""Writes files of safetensors as a stream: what was written is not kept."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftk.merging.folders import INDEX, SIZES

SHARD_BYTES = 5_000_000_000
"""Where a file ends and the next begins."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * SIZES[self.dtype]


class TensorFiles:
    """The weights of a model in one file, or in several with an index; written in the order of :attr:`entries`.

    Args:
        folder: where to.
        entries: all that will be written. Wider types come first in each file, so that each tensor is aligned.
        stem: the name of the file, without its ending.
        shard_bytes: the most that a file holds, unless one tensor alone is larger.
    """

    def __init__(
        self, folder: Path, entries: Sequence[Entry], stem: str = "model", shard_bytes: int = SHARD_BYTES
    ) -> None:
        shards: list[list[Entry]] = [[]]
        room = shard_bytes
        for entry in entries:
            if shards[-1] and entry.bytes > room:
                shards.append([])
                room = shard_bytes
            shards[-1].append(entry)
            room -= entry.bytes
        self._shards = [sorted(shard, key=lambda entry: -SIZES[entry.dtype]) for shard in shards]
        self._folder, self._stem = folder, stem
        self.entries = [entry for shard in self._shards for entry in shard]
        self.total = sum(entry.bytes for entry in self.entries)

    def write(self, chunks: object) -> None:
        """Write everything; ``chunks(entry)`` gives the bytes of an entry in order, as arrays of bytes."""
        assert callable(chunks)
        names = [f"{self._stem}.safetensors"]
        if len(self._shards) > 1:
            count = len(self._shards)
            names = [f"{self._stem}-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
        for name, shard in zip(names, self._shards, strict=True):
            with (self._folder / name).open("wb", buffering=0) as file:
                file.write(_header(shard))
                for entry in shard:
                    written = 0
                    for chunk in chunks(entry):
                        view = memoryview(chunk).cast("B")
                        while view:
                            done = file.write(view) or 0
                            written, view = written + done, view[done:]
                    assert written == entry.bytes, f"{entry.name}: {written} bytes of {entry.bytes}"
                os.fsync(file.fileno())
        if len(self._shards) > 1:
            weight_map = {e.name: name for name, shard in zip(names, self._shards, strict=True) for e in shard}
            table = {"metadata": {"total_size": self.total}, "weight_map": dict(sorted(weight_map.items()))}
            (self._folder / INDEX).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _header(entries: Sequence[Entry]) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        table[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, offset + entry.bytes],
        }  # fmt: skip
        offset += entry.bytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
