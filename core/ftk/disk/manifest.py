"""Sealed directories: a manifest with every file's size and checksum; what is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from ftk.errors import FtkError, UserError
from ftk.files import read_json, sync

MANIFEST = "manifest.json"


class Damaged(FtkError):
    """A bundle on disk is not what was written: a file is missing, cut short or changed."""


def seal(directory: Path, known: Mapping[str, Any] | None = None, **facts: Any) -> None:
    """Write the manifest of a directory: every file's size and SHA-256; and sync all of it to disk.

    Args:
        directory: what is sealed.
        known: what the manifest says of files that others have looked at and synced already.
        facts: JSON values for the manifest.
    """
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST):
        name = path.relative_to(directory).as_posix()
        files[name] = (known or {}).get(name) or told_of(path)
    manifest = {"schema": 1, **facts, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    sync(directory / MANIFEST)
    sync(directory)


def verify(directory: Path, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """Check a sealed directory against its manifest and return the manifest.

    Args:
        directory: what was sealed.
        mesh: the processes that share the reading, and come to one answer.

    Raises:
        Damaged: naming the first file that is missing, cut short or changed.
    """
    damage, manifest = "", {}
    rank, world = (mesh.get_local_rank(), mesh.size()) if mesh else (0, 1)
    try:
        manifest = read_manifest(directory)
        for name, told in list(manifest["files"].items())[rank::world]:
            verify_file(directory / name, told)
    except Damaged as error:
        damage = str(error)
    if world > 1:
        heard: list[Any] = [None] * world
        torch.distributed.all_gather_object(heard, damage)
        damage = next(filter(None, heard), "")
    if damage:
        raise Damaged(damage)
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
        return read_json(path)
    except UserError as error:
        raise Damaged(str(error)) from error


def replace_directory(aside: Path, directory: Path) -> None:
    """Rename ``aside`` to ``directory``; one that is already there makes room first."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    aside.rename(directory)
    sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def told_of(path: Path) -> dict[str, Any]:
    """What a manifest says of a file, which is then surely on the disk."""
    told = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    sync(path)
    return told


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
