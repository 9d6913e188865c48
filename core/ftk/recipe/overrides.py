"""Changes to a recipe from the command line: ``--set key=value`` and ``--without NAME``."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from ftk.errors import Problem, RecipeError, UserError, did_you_mean
from ftk.recipe.training import Training

TOP_KEYS = (
    "name", "seed", "model", "objective", "adaptation", "data", "mitigation", "evaluator",
    "training", "stage", "sequence",
)  # fmt: skip
"""What may stand at the top of a recipe."""
STAGE_KEYS = ("name", "objective", "adaptation", "data", "mitigation", "evaluator", "training", "sequence")
"""What may stand in a ``[[stage]]``."""

NAMED = ("optimizer", "schedule")
"""Keys of ``[training]`` that hold a name or a table; a table without ``use`` changes options of the default's."""

UNSET = frozenset(name for name, field in Training.model_fields.items() if field.default is None)
"""Keys of ``[training]`` that nothing stands for where they are not written."""

ONE_OF = (
    ("epochs", "steps"),
    ("warmup", "warmup_steps"),
    ("batch_size", "batch_tokens"),
    ("micro_batch_size", "micro_batch_tokens"),
)
"""Keys of ``[training]`` of which one at most may stand in a recipe."""


def override(table: Mapping[str, Any], source: str, settings: Sequence[str], without: Sequence[str]) -> dict[str, Any]:
    """A copy of a recipe's table with every ``key=value`` set, then every mitigation in ``without`` left out.

    Args:
        table: the recipe as TOML gave it, not yet validated.
        source: where it was read from, for messages.
        settings: each ``path=value``; a path leads through tables by key and through lists by the name of a
            part or stage or by number, from 1. A value is TOML; what is no TOML is text.
        without: names of mitigations.

    Raises:
        RecipeError: paths lead nowhere.
        UserError: no mitigation has this name.
    """
    changed = copy.deepcopy(dict(table))
    problems = []
    for setting in settings:
        try:
            _set(changed, setting)
        except UserError as error:
            problems.append(Problem(f"--set {setting}", error.message, error.hint))
    if problems:
        raise RecipeError(source, problems)
    for name in dict.fromkeys(without):
        _leave_out(changed, name)
    return changed


def merge_training(default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``default``, key by key.

    Of two keys that say one thing, the one in ``own`` replaces either; and ``false`` takes a key back that is unset
    by default.
    """
    kept = {key: value for key, value in default.items() if not other_ways(key) & own.keys()}
    merged = {**kept, **own}
    for key in NAMED:
        table, changed = as_table(default.get(key)), own.get(key)
        if isinstance(table, dict) and isinstance(changed, dict) and "use" not in changed:
            merged[key] = {**table, **changed}
    return {key: value for key, value in merged.items() if value is not False or key not in UNSET}


def other_ways(key: str) -> set[str]:
    """The keys of ``[training]`` that say the same as this one and cannot stand beside it."""
    return {other for pair in ONE_OF for other in pair if key in pair and key != other}


def as_table(value: Any) -> Any:
    """A name as the table that it stands for."""
    return {"use": value} if isinstance(value, str) else value


def part_name(table: Any) -> str:
    """A part's name as its table gives it: ``name``, else the variant in ``use``; or nothing."""
    if not isinstance(table, Mapping):
        return ""
    name = table.get("name", table.get("use", ""))
    return name.rpartition("/")[2] if isinstance(name, str) else ""


def _set(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals:
        raise UserError("has no `=`", "write --set key=value, as in --set training.epochs=5")
    steps, value = steps_of(key), value_of(text.strip())
    here: Any = table
    for depth, step in enumerate(steps[:-1]):
        here = _enter(table, here, steps[:depth], step)
    last, place = steps[-1], steps[:-1]
    if isinstance(here, list):
        here[_index(here, last, place)] = value
        return
    valid = TOP_KEYS if not place else STAGE_KEYS if _is_stage(place) else None
    if valid and last not in valid:
        raise UserError(f"{'a stage' if place else 'a recipe'} has no key `{last}`", did_you_mean(last, valid))
    if place and place[-1] == "training":
        for other in other_ways(last):
            here.pop(other, None)
    here[last] = value


def _enter(table: dict[str, Any], here: Any, place: list[str], step: str) -> Any:
    """The table or list that ``step`` leads to, made where a recipe may leave it out."""
    if isinstance(here, list):
        found = here[_index(here, step, place)]
    else:
        valid = TOP_KEYS if not place else STAGE_KEYS if _is_stage(place) else None
        if valid and step not in valid:
            raise UserError(f"{'a stage' if place else 'a recipe'} has no key `{step}`", did_you_mean(step, valid))
        if step not in here:
            # A stage without a list of its own has the default list, and setting one key must not lose it.
            inherited = table.get(step) if _is_stage(place) and step in ("mitigation", "evaluator") else None
            lists = step in ("mitigation", "evaluator", "stage", "transform")
            here[step] = copy.deepcopy(inherited) if inherited is not None else [] if lists else {}
        if step in NAMED and place and place[-1] == "training":
            here[step] = as_table(here[step])
        found = here[step]
    if not isinstance(found, dict | list):
        raise UserError(f"`{'.'.join([*place, step])}` is a value, nothing can be set inside it")
    return found


def _index(items: list[Any], step: str, place: list[str]) -> int:
    names = [part_name(item) for item in items]
    if names.count(step) == 1:
        return names.index(step)
    where = ".".join(place)
    if names.count(step) > 1:
        numbers = ", ".join(f"{where}.{number}" for number, name in enumerate(names, 1) if name == step)
        raise UserError(f"`{where}` has several `{step}`", f"count from 1 instead: {numbers}")
    if step.isdecimal() and 1 <= int(step) <= len(items):
        return int(step) - 1
    if not items:
        hint = f"a stage's own list is addressed as stage.NAME.{where}" if len(place) == 1 else ""
        raise UserError(f"`{where}` is empty in this recipe", hint)
    valid = [name for name in names if name] or [str(number) for number in range(1, len(items) + 1)]
    raise UserError(f"`{where}` has no `{step}`", did_you_mean(step, valid))


def _is_stage(place: Sequence[str]) -> bool:
    return len(place) == 2 and place[0] == "stage"


def steps_of(key: str) -> list[str]:
    """A dotted TOML key as its steps.

    Raises:
        UserError: it is none.
    """
    try:
        node: Any = tomllib.loads(f"{key.strip()} = 0")
    except tomllib.TOMLDecodeError:
        node = {}
    steps = []
    while isinstance(node, dict) and len(node) == 1:
        [(step, node)] = node.items()
        steps.append(step)
    if node != 0 or not steps:
        raise UserError(f"`{key}` is no path", "write keys joined by dots, as in --set mitigation.ewc.strength=1")
    return steps


def value_of(text: str) -> Any:
    """What a command line writes as TOML does, or the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _leave_out(table: dict[str, Any], name: str) -> None:
    stages = table.get("stage")
    levels = [table, *(stages if isinstance(stages, list) else [])]
    there: set[str] = set()
    for level in levels:
        parts = level.get("mitigation") if isinstance(level, dict) else None
        if isinstance(parts, list):
            there.update(part_name(part) for part in parts)
            level["mitigation"] = [part for part in parts if part_name(part) != name]
    if name not in there:
        hint = did_you_mean(name, there - {""}) or "the recipe has no mitigation"
        raise UserError(f"--without {name}: the recipe has no mitigation of this name", hint)
