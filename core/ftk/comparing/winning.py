"""Writes the recipe that won a sweep: the user's own file with the values of a point, its comments kept."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any

from ftk.errors import UserError
from ftk.recipe.overrides import override
from ftk.recipe.sequence import before_unrolling, unroll


def needs_tomlkit() -> None:
    """Look for what keeps a recipe's comments, before hours are spent.

    Raises:
        UserError: it is not installed.
    """
    try:
        importlib.import_module("tomlkit")
    except ImportError as error:
        raise UserError("--best needs tomlkit", 'pip install "finetune-toolkit[sweep]"') from error


def winning_recipe(path: Path, settings: Sequence[str], without: Sequence[str], head: str) -> str:
    """The text of a recipe with changes made to it.

    A change inside a stage of a ``[sequence]`` cannot stand in the sequence: the text then holds its stages one by one.

    Args:
        path: the recipe.
        settings: ``key=value`` changes, the last of one key counting.
        without: mitigations to leave out.
        head: a comment for the first lines.
    """
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    table = document.unwrap()
    early, late = before_unrolling(table, settings)
    changed = override(table, str(path), early, ())
    stages = unroll(changed, changed=bool(early)).table
    if stages == changed or late or without:
        changed = override(stages, str(path), late, without)
    _make_alike(document, changed)
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    return f"{comment}#\n{tomlkit.dumps(document)}"


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        UserError: it is there, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{path}: there is such a file already", "choose another name for the recipe") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def _make_alike(document: MutableMapping[str, Any], table: Mapping[str, Any]) -> None:
    """Give a document the values of a table, touching nothing that is the same already."""
    for key in [key for key in document if key not in table]:
        del document[key]
    for key, value in table.items():
        if key not in document:
            document[key] = value
        elif (inner := document[key]) != value:
            if isinstance(inner, MutableMapping) and isinstance(value, Mapping):
                _make_alike(inner, value)
            elif _are_tables(inner) and _are_tables(value) and len(inner) == len(value):
                for its, other in zip(inner, value, strict=True):
                    _make_alike(its, other)
            else:
                document[key] = value


def _are_tables(value: Any) -> bool:
    return isinstance(value, MutableSequence) and all(isinstance(item, Mapping) for item in value)
