"""Small files: read as what somebody else may have written or cut short, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ftk.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: cannot be read (it holds no JSON object)")
    return found


def write_text(path: Path, text: str, *, alone: bool = True) -> None:
    """Write a small file whole or not at all.

    Args:
        path: the file.
        text: what it is to hold.
        alone: no other process may be writing it; then what a killed one has left is written over.
    """
    aside = path.with_name(f".{path.name}.partial" if alone else f".{path.name}.{os.getpid()}.partial")
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.replace(path)


def sync(path: Path) -> None:
    """See that a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
