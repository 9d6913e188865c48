"""Whose folder it is: an ablation or a sweep writes where nothing is, or where the same recipe was before."""

from __future__ import annotations

import json
from pathlib import Path

from ftk.errors import UserError
from ftk.files import read_json, write_text
from ftk.recipe.growing import as_before, difference
from ftk.recipe.specs import Recipe


def claim(folder: Path, file: str, kind: str, recipe: Recipe, fresh: bool | None = None) -> None:
    """Make the folder, with a file in it that says whose it is; where nothing was trained yet, it is taken over.

    Args:
        folder: of all runs.
        file: its name; of what it holds, ``name`` and ``recipe`` are looked at, the seed there apart.
        kind: what is in the folder, in words.
        recipe: what is varied there.
        fresh: take it from another recipe; None where that cannot be asked for.

    Raises:
        UserError: the folder holds something else, or runs of another recipe.
    """
    mark, elsewhere = folder / file, "choose another folder with --output"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder", elsewhere)
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if file not in names and any(not (name.startswith(f".{file}.") and name.endswith(".partial")) for name in names):
        raise UserError(f"{folder}: holds files, but no {kind} of ftk", "choose an empty or a new folder with --output")
    told = {"schema": 1, "name": recipe.name, "recipe": recipe.resolved()}
    if file in names and not fresh and _has_trained(folder):
        held = read_json(mark)
        if held.get("name") == recipe.name:
            found = difference(_without_seed(held.get("recipe")), _without_seed(as_before(held.get("recipe"), recipe)))
            if not found:
                return
            whose = f"before it changed: {found}"
        else:
            whose = f"and this is `{recipe.name}`"
        mend = f"{elsewhere}, or {'delete this one' if fresh is None else 'start over here with --fresh'}"
        raise UserError(f"{folder}: holds the {kind} of recipe `{held.get('name')}`, {whose}", mend)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(mark, json.dumps(told, indent=2, ensure_ascii=False) + "\n", alone=False)


def _without_seed(resolved: object) -> dict[str, object]:
    return {**resolved, "seed": None} if isinstance(resolved, dict) else {}


def _has_trained(folder: Path) -> bool:
    """Whether a run in it has come to something that took training to make."""
    made = ("report.json", "checkpoints/*", "stages/[1-9]*")
    return any(True for name in made for _ in folder.glob(f"*/seed-*/{name}"))
