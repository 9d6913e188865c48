"""Small files that somebody else may have written or cut short."""

from __future__ import annotations

import json
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
