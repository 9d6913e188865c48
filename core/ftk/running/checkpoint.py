"""Durable state on disk: bundles of tensors and JSON, written aside, synced and renamed, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
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


class BundleWriter:
    """Writes bundles; a part whose tensors have not changed since its last bundle is linked, not written again."""

    def __init__(self) -> None:
        # By part: each tensor, weakly so that nothing is kept from being freed, with its version; and the file.
        self._last: dict[str, tuple[list[tuple[str, ref[Tensor], int]], Path]] = {}

    def write(self, directory: Path, states: Mapping[str, State], **facts: Any) -> None:
        """Write a bundle of named states at ``directory``, whole or not at all.

        Args:
            directory: where the bundle appears, in one rename; a bundle already there is replaced.
            states: tensors and JSON values by name, for each part by its name.
            facts: JSON values for the manifest.
        """
        aside = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        written = {}
        for name, state in states.items():
            tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
            values = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
            if tensors:
                self._write_tensors(name, tensors, aside / f"{name}.safetensors")
                written[name] = directory / f"{name}.safetensors", tensors
            if values or not tensors:
                (aside / f"{name}.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        seal(aside, **facts, parts=sorted(states))
        replace_directory(aside, directory)
        for name, (path, tensors) in written.items():
            self._last[name] = [(key, ref(tensor), tensor._version) for key, tensor in tensors.items()], path

    def _write_tensors(self, name: str, tensors: Mapping[str, Tensor], path: Path) -> None:
        known, last = self._last.get(name, ([], Path()))
        unchanged = [key for key, _, _ in known] == list(tensors) and all(
            tensors[key] is tensor() and tensors[key]._version == version for key, tensor, version in known
        )
        if unchanged and last.is_file():
            try:
                os.link(last, path)
                return
            except OSError:
                pass  # a file system without hard links: write it again
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
