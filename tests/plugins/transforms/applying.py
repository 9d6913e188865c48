"""What the tests of transforms share: a transform as a recipe names it, applied to rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset

from ftk.parts import Effect
from ftk.plugin.discovery import load_registry
from ftk.testing import Subject

BUILTIN = load_registry(third_party=False)
Rows = list[dict[str, Any]]


def apply(use: str, rows: Iterable[Mapping[str, Any]] | Dataset, **options: Any) -> tuple[Rows, tuple[Effect, ...]]:
    """The rows that come out, and what is told of them."""
    transform = Subject("transform", use, options, registry=BUILTIN).build()
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list([dict(row) for row in rows])
    return list(transform.apply(dataset)), transform.effects()


def texts(use: str, given: Iterable[str], **options: Any) -> list[str]:
    """Rows of one column of texts, the same way."""
    return [row["text"] for row in apply(use, [{"text": text} for text in given], **options)[0]]


def told(effects: Iterable[Effect]) -> dict[str, int]:
    """How many rows by what befell them and why."""
    return {f"{effect.fate} {effect.reason}": effect.rows for effect in effects}
