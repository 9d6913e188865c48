"""Whether a recipe is another one with more stages after it, so that a run of that one goes on with these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk.recipe.complaints import show
from ftk.recipe.specs import PartSpec, Recipe


def difference(held: Any, asked: Mapping[str, Any]) -> str:
    """What keeps one recipe from going on with a run of another, in words; empty where nothing does.

    Args:
        held: what was run, as :meth:`ftk.recipe.specs.Recipe.resolved` gave it.
        asked: what is to be run, as :func:`as_before` gives it.
    """
    try:
        before, after = list(held["stages"]), list(asked["stages"])
        names = [stage["name"] for stage in before]
        old = {key: value for key, value in held.items() if key != "stages"}
    except (TypeError, KeyError, AttributeError):
        return "what was run cannot be read"
    if found := _first(old, {key: value for key, value in asked.items() if key != "stages"}, ""):
        return found
    for number, (stage, other) in enumerate(zip(before, after, strict=False)):
        if stage["name"] != other["name"]:
            return f"stage {number + 1} is `{other['name']}`, and was `{stage['name']}`"
        if found := _first(stage, other, ""):
            return f"stage `{stage['name']}`: {found}"
    gone = ", ".join(f"`{name}`" for name in names[len(after) :])
    return f"{gone} came after its last stage" if gone else ""


def as_before(held: Any, recipe: Recipe) -> dict[str, Any]:
    """A recipe with more stages than ``held``, resolved, its lists that may grow (`Options.growing`) as they were."""
    asked = recipe.resolved()
    try:
        before = held["stages"]
        if len(before) >= len(recipe.stages):
            return asked
        pairs = [(old["objective"], stage.objective) for old, stage in zip(before, recipe.stages, strict=False)]
        found = [_shortened(old, spec) for old, spec in pairs]
        if held["retain"] and recipe.retain:
            retained = _shortened(held["retain"]["objective"], recipe.retain_objective)
            asked["retain"] = {**asked["retain"], "objective": retained}
    except (TypeError, KeyError, AttributeError):
        return asked  # what was run cannot be read
    stages = [{**stage, "objective": objective} for stage, objective in zip(asked["stages"], found, strict=False)]
    return {**asked, "stages": stages + asked["stages"][len(stages) :]}


def _shortened(old: Any, spec: PartSpec) -> dict[str, Any]:
    """An objective, resolved, with its lists that may grow as they were where they begin so."""
    new = spec.resolved()
    for key in spec.options.growing():
        before, now = old["options"].get(key), new["options"][key]
        if before and now[: len(before)] == before:
            new["options"][key] = before
    for part in spec.parts:
        new["tasks"][part.name] = _shortened(old["tasks"][part.name], part)
    return new


def _first(old: Any, new: Any, place: str) -> str:
    """The first place where two tables differ, with both values."""
    if old == new:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            if found := _first(old.get(key), new.get(key), f"{place}.{key}" if place else key):
                return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True), start=1):
            if found := _first(one, other, f"{place}.{_label(one, other) or number}"):
                return found
    return f"{place} is {_told(new)}, and was {_told(old)}"


def _label(old: Any, new: Any) -> str:
    """The name of a part of a list, where both have it."""
    names = [part.get("name") if isinstance(part, dict) else None for part in (old, new)]
    return str(names[0]) if names[0] is not None and names[0] == names[1] else ""


def _told(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(part, dict) and "name" in part for part in value):
        return ", ".join(f"`{part['name']}`" for part in value)
    return "unset" if value is None else show(value)
