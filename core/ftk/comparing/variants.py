"""The variants of a recipe that an ablation runs: without each mitigation, with none, each alone, all tasks at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftk.comparing.joint import CannotJoin, joint_recipe
from ftk.errors import RecipeError
from ftk.plugin.registry import Registry
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe

FULL, NONE, JOINT = "full", "none", "joint"


@dataclass(frozen=True)
class Variant:
    """One recipe to run beside others.

    Attributes:
        name: of its folder and its line in tables.
        summary: what it changes, in words.
        recipe: this variant, with the seed of the recipe.
    """

    name: str
    summary: str
    recipe: Recipe

    def seeded(self, seed: int) -> Recipe:
        """The recipe with another seed."""
        return replace(self.recipe, seed=seed)


@dataclass(frozen=True)
class LeftOut:
    """A variant that cannot be made."""

    name: str
    reason: str


def variants(path: str | Path, settings: Sequence[str], registry: Registry) -> tuple[list[Variant], list[LeftOut]]:
    """The recipe as it is first, then those that differ from the ones before, and those that cannot be made.

    Args:
        path: the recipe.
        settings: ``key=value`` changes to it.
        registry: what it can name.

    Raises:
        UserError: the recipe itself is wrong.
    """
    full = load_recipe(path, overrides=settings, registry=registry)
    names = list(dict.fromkeys(spec.name for stage in full.stages for spec in stage.mitigations))
    found, left_out = [Variant(FULL, "the recipe as it is", full)], []
    asked = [(f"without-{name}", f"without {name}", [name]) for name in names]
    asked += [(NONE, "without any mitigation", names)] if names else []
    asked += [(f"only-{name}", f"{name} alone", [other for other in names if other != name]) for name in names]
    known = {full.sha256: 0}
    for name, summary, without in asked:
        try:
            recipe = load_recipe(path, overrides=settings, without=without, registry=registry)
        except RecipeError as error:
            left_out.append(LeftOut(name, "; ".join(f"{p.path}: {p.reason}" for p in error.problems)))
            continue
        if (same := known.setdefault(recipe.sha256, len(found))) == len(found):
            found.append(Variant(name, summary, recipe))
        elif same:
            found[same] = replace(found[same], summary=f"{found[same].summary}; {summary}")
    try:
        found.append(Variant(JOINT, "all tasks at once, from the same start", joint_recipe(full, registry)))
    except CannotJoin as error:
        left_out.append(LeftOut(JOINT, str(error)))
    return found, left_out
