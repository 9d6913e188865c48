"""Durable state on disk: bundles of tensors and JSON, written aside, synced and renamed, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import ref

from safetensors.torch import load_file, save_file
from torch import Tensor

from ftk.errors import FtkError
from ftk.parts import State

MANIFEST = "manifest.json"


class Damaged(FtkError):
    """A bundle on disk is not what was written: a file is missing, cut short or changed."""


@dataclass(frozen=True)
class Part:
    """One part of a bundle, ready to be written.

    Attributes:
        tensors: to write, on the CPU.
        values: further values as JSON text; None: there are none.
        same: the file of an earlier bundle that holds the very tensors, in place of ``tensors``.
    """

    tensors: Mapping[str, Tensor]
    values: str | None
    same: Path | None


@dataclass(frozen=True)
class Bundle:
    """Named states as they stood when they were taken; writing them touches nothing else.

    Attributes:
        directory: where the bundle will appear.
        parts: by name.
        facts: JSON values for the manifest.
    """

    directory: Path
    parts: Mapping[str, Part]
    facts: Mapping[str, Any]

    def write(self) -> None:
        """Write the bundle, whole or not at all, in one rename; one that is already there is replaced."""
        aside = self.directory.with_name(f".{self.directory.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            for name, part in self.parts.items():
                path = aside / f"{name}.safetensors"
                if part.same is not None:
                    link_or_copy(part.same, path)
                elif part.tensors:
                    save_file(dict(part.tensors), path)
                if part.values is not None:
                    (aside / f"{name}.json").write_text(part.values, encoding="utf-8")
            seal(aside, **self.facts, parts=sorted(self.parts))
        except Exception:
            shutil.rmtree(aside, ignore_errors=True)  # a full disk needs the room
            raise
        replace_directory(aside, self.directory)


class Bundler:
    """Takes bundles; a part whose tensors have not changed since the last one is linked to it, not taken again."""

    def __init__(self) -> None:
        # By part: each tensor, weakly so that nothing is kept from being freed, with its version; and the file.
        self._last: dict[str, tuple[list[tuple[str, ref[Tensor], int]], Path]] = {}

    def take(self, directory: Path, states: Mapping[str, State], copy: bool, **facts: Any) -> Bundle:
        """Take named states for a bundle at ``directory``. The bundle taken before must have been written.

        Args:
            directory: where the bundle will appear.
            states: tensors and JSON values by name, for each part by its name.
            copy: copy tensors that have changed since the last bundle, so that the states may go on changing
                before the bundle is written.
            facts: JSON values for the manifest.
        """
        return Bundle(
            directory, {name: self._part(name, state, directory, copy) for name, state in states.items()}, facts
        )

    def _part(self, name: str, state: State, directory: Path, copy: bool) -> Part:
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        values = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        text = json.dumps(values, ensure_ascii=False) if values or not tensors else None
        same = self._unchanged(name, tensors) if tensors else None
        if tensors:
            marked = [(key, ref(tensor), tensor._version) for key, tensor in tensors.items()]
            self._last[name] = marked, directory / f"{name}.safetensors"
        taken = {} if same else {key: _on_cpu(tensor, copy) for key, tensor in tensors.items()}
        return Part(taken, text, same)

    def _unchanged(self, name: str, tensors: Mapping[str, Tensor]) -> Path | None:
        """The file that holds these very tensors already."""
        known, last = self._last.get(name, ([], Path()))
        unchanged = [key for key, _, _ in known] == list(tensors) and all(
            tensors[key] is tensor() and tensors[key]._version == version for key, tensor, version in known
        )
        return last if unchanged and last.is_file() else None


def read_bundle(directory: Path) -> tuple[dict[str, State], dict[str, Any]]:
    """Read a bundle back: the states by part, and the manifest's facts.

    Raises:
        Damaged: a file is missing or not what its checksum says.
    """
    manifest = verify(directory)
    states: dict[str, State] = {}
    try:
        for name in manifest["parts"]:
            state: State = {}
            if f"{name}.safetensors" in manifest["files"]:
                state.update(load_file(directory / f"{name}.safetensors"))
            if f"{name}.json" in manifest["files"]:
                state.update(json.loads((directory / f"{name}.json").read_text(encoding="utf-8")))
            states[name] = state
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{directory / MANIFEST}: does not tell what is in the folder ({error})") from error
    return states, manifest


def seal(directory: Path, **facts: Any) -> None:
    """Write the manifest of a directory: every file's size and SHA-256; and sync all of it to disk."""
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST):
        files[path.relative_to(directory).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        _sync(path)
    manifest = {"schema": 1, **facts, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    _sync(directory / MANIFEST)
    _sync(directory)


def verify(directory: Path) -> dict[str, Any]:
    """Check a sealed directory against its manifest and return the manifest.

    Raises:
        Damaged: naming the first file that is missing, cut short or changed.
    """
    manifest = read_manifest(directory)
    for name, told in manifest["files"].items():
        verify_file(directory / name, told)
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a sealed directory, whose files are not looked at.

    Raises:
        Damaged: it cannot be read, or tells no files with their sizes and checksums.
    """
    manifest = read_table(directory / MANIFEST)
    files = manifest.get("files")
    told = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in told):
        raise Damaged(f"{directory / MANIFEST}: cannot be read (it is not a manifest)")
    return manifest


def verify_file(file: Path, told: Mapping[str, Any]) -> None:
    """Check one file against what its manifest tells of it.

    Raises:
        Damaged: it is missing, cut short or changed.
    """
    if not file.is_file():
        raise Damaged(f"{file}: is missing")
    try:
        whole = file.stat().st_size == told["bytes"] and _sha256(file) == told["sha256"]
    except OSError as error:
        raise Damaged(f"{file}: cannot be read ({error})") from error
    if not whole:
        raise Damaged(f"{file}: is damaged, its checksum does not match")


def read_table(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        Damaged: it cannot be read, or holds something else.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path}: cannot be read ({error})") from error
    if not isinstance(table, dict):
        raise Damaged(f"{path}: cannot be read (it holds no JSON object)")
    return table


def replace_directory(aside: Path, directory: Path) -> None:
    """Rename ``aside`` to ``directory``; one that is already there makes room first."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    aside.rename(directory)
    _sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    _sync(aside)
    aside.replace(path)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _on_cpu(tensor: Tensor, copy: bool) -> Tensor:
    taken = tensor.detach().contiguous()
    return taken.to("cpu", copy=copy and taken.data_ptr() == tensor.data_ptr())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
