"""Durable state on disk: bundles of tensors and JSON, written aside, synced and renamed, with checksums."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from ftk.disk.manifest import MANIFEST, Damaged, replace_directory, seal, told_of, verify
from ftk.disk.pieces import index_of, is_divided, own_pieces, piece, read_pieces
from ftk.parts import State


@dataclass(frozen=True)
class Part:
    """One part of a bundle, ready to be written.

    Attributes:
        tensors: to write, on the CPU.
        values: further values as JSON text; None: there are none.
        same: the file of an earlier bundle that holds the very tensors, in place of ``tensors``.
        index: which rows of its divided tensors lie in which file, as JSON text; None: it has no such tensors.
    """

    tensors: Mapping[str, Tensor]
    values: str | None
    same: Path | None
    index: str | None = None


@dataclass(frozen=True)
class Bundle:
    """Named states as they stood when they were taken; writing them touches nothing else.

    Attributes:
        directory: where the bundle will appear.
        parts: what this process writes, by name.
        facts: JSON values for the manifest.
        together: whether all processes write it, each its rows of what is divided among them.
    """

    directory: Path
    parts: Mapping[str, Part]
    facts: Mapping[str, Any]
    together: bool = False

    def write(self) -> None:
        """Write the bundle, whole or not at all, in one rename; one that is already there is replaced."""
        aside = self.directory.with_name(f".{self.directory.name}.partial")
        first = not self.together or torch.distributed.get_rank() == 0
        if first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        if self.together:
            torch.distributed.barrier()
        try:
            for name, part in self.parts.items():
                path = aside / f"{name}.safetensors"
                if part.same is not None:
                    link_or_copy(part.same, path)
                elif part.tensors:
                    save_file(dict(part.tensors), path)
                for text, ending in ((part.values, "json"), (part.index, "rows.json")):
                    if text is not None:
                        (aside / f"{name}.{ending}").write_text(text, encoding="utf-8")
            known = _told_by_all(aside, self.parts) if self.together else {}
            if first:
                seal(aside, known, **self.facts)
        except Exception:
            shutil.rmtree(aside, ignore_errors=True)  # a full disk needs the room
            raise
        if first:
            replace_directory(aside, self.directory)
        if self.together:
            torch.distributed.barrier()


RESTING = "mitigation."
"""How the names of parts begin that may rest between two bundles. What an optimizer moves is taken every time: torch's
fused kernels leave no trace in a tensor's ``_version``."""


class Bundler:
    """Takes bundles; a mitigation's part that has not changed since the last one is linked to it, not taken again."""

    def __init__(self) -> None:
        # By part: each tensor, weakly so that nothing is kept from being freed, with its version; and the file.
        self._last: dict[str, tuple[list[tuple[str, ref[Tensor], int]], Path]] = {}

    def take(self, directory: Path, states: Mapping[str, State], copy: bool, **facts: Any) -> Bundle:
        """Take named states for a bundle at ``directory``. The bundle taken before must have been written.

        Where a tensor is divided among the processes all of them call this, and then write the bundle together: each
        its rows, the first process the rest.

        Args:
            directory: where the bundle will appear.
            states: tensors and JSON values by name, for each part by its name.
            copy: copy tensors that have changed since the last bundle, so that the states may go on changing
                before the bundle is written.
            facts: JSON values for the manifest.
        """
        together = is_divided(states)
        rank = torch.distributed.get_rank() if together else 0
        parts = {}
        for name, state in states.items():
            divided = {key: value for key, value in state.items() if isinstance(value, DTensor)}
            if divided:
                parts[piece(name, rank)] = self._part(piece(name, rank), own_pieces(divided), directory, copy)
            if rank == 0:
                rest = {key: value for key, value in state.items() if key not in divided}
                parts[name] = self._part(name, rest, directory, copy, index_of(name, divided) if divided else None)
        return Bundle(directory, parts, {**facts, "parts": sorted(states)}, together)

    def _part(self, name: str, state: State, directory: Path, copy: bool, index: str | None = None) -> Part:
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        values = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        text = json.dumps(values, ensure_ascii=False) if values or not tensors else None
        resting = bool(tensors) and name.startswith(RESTING)
        same = self._unchanged(name, tensors) if resting else None
        if resting:
            marked = [(key, ref(tensor), tensor._version) for key, tensor in tensors.items()]
            self._last[name] = marked, directory / f"{name}.safetensors"
        taken = {} if same else {key: _on_cpu(tensor, copy) for key, tensor in tensors.items()}
        return Part(taken, text, same, index)

    def _unchanged(self, name: str, tensors: Mapping[str, Tensor]) -> Path | None:
        """The file that holds these very tensors already."""
        known, last = self._last.get(name, ([], Path()))
        unchanged = [key for key, _, _ in known] == list(tensors) and all(
            tensors[key] is tensor() and tensors[key]._version == version for key, tensor, version in known
        )
        return last if unchanged and last.is_file() else None


def read_bundle(directory: Path, mesh: DeviceMesh | None = None) -> tuple[dict[str, State], dict[str, Any]]:
    """Read a bundle back: the states by part, and the manifest's facts.

    Args:
        directory: where it is.
        mesh: the processes that read it together, each its rows of what is divided; None where there is only this one.

    Raises:
        Damaged: a file is missing or not what its checksum says.
    """
    manifest = verify(directory, mesh)
    states: dict[str, State] = {}
    try:
        for name in manifest["parts"]:
            state: State = {}
            if f"{name}.safetensors" in manifest["files"]:
                state.update(load_file(directory / f"{name}.safetensors"))
            if f"{name}.rows.json" in manifest["files"]:
                state.update(read_pieces(directory / f"{name}.rows.json", mesh))
            if f"{name}.json" in manifest["files"]:
                state.update(json.loads((directory / f"{name}.json").read_text(encoding="utf-8")))
            states[name] = state
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{directory / MANIFEST}: does not tell what is in the folder ({error})") from error
    return states, manifest


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _on_cpu(tensor: Tensor, copy: bool) -> Tensor:
    taken = tensor.detach().contiguous()
    return taken.to("cpu", copy=copy and taken.data_ptr() == tensor.data_ptr())


def _told_by_all(folder: Path, parts: Mapping[str, Part]) -> dict[str, Any]:
    """What the manifest says of the tensors' files that each process wrote, by name; waits for all of them."""
    mine = (f"{name}.safetensors" for name, part in parts.items() if part.same or part.tensors)
    heard: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(heard, {name: told_of(folder / name) for name in mine})
    return {name: told for files in heard for name, told in files.items()}
