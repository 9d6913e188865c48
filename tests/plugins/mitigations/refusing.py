"""What `ftk check` says of a small recipe with one mitigation."""

from __future__ import annotations

from typing import Any

import ftk
from ftk.recipe.reading import recipe_from_table


def told_of(mitigation: dict[str, Any], changed: dict[str, Any]) -> str:
    """Why the recipe is refused; nothing where it is right."""
    table = {
        "name": "r", "model": {"use": "scratch"}, "objective": {"use": "causal_lm"}, "adaptation": {"use": "full"},
        "data": {"train": {"use": "world_facts"}}, "mitigation": [mitigation], **changed,
    }  # fmt: skip
    try:
        recipe_from_table(table, "r.toml", "")
    except ftk.RecipeError as error:
        return str(error)
    return ""
