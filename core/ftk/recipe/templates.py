"""Templates of a recipe's tables: names in braces, and what they become under one value of a sequence."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftk.errors import Problem
from ftk.recipe.complaints import show
from ftk.recipe.overrides import part_name

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass
class Filled:
    """A part of a template with values in the places of names.

    Attributes:
        node: the part.
        taken: by place, the names whose values stand there as they are.
    """

    node: Any
    taken: dict[str, str] = field(default_factory=dict)


def placeholders(node: Any) -> Iterator[str]:
    """The names that stand in braces somewhere in a part of a recipe."""
    if isinstance(node, str):
        yield from PLACEHOLDER.findall(node)
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from placeholders(inner)


def fill(node: Any, place: tuple[str, ...], row: Mapping[str, Any]) -> tuple[Filled, list[Problem]]:
    """A copy of a part of a template: a text that is one name alone becomes its value, others hold it as text.

    Args:
        node: as TOML gave it.
        place: of the part in its stage; parts of lists by the names that messages call them by.
        row: the values by name; other names in braces stay as they are.
    """
    filled, problems = Filled(None), list[Problem]()
    filled.node = _filled(node, place, row, filled.taken, problems)
    return filled, problems


def in_a_name(value: Any) -> str:
    """A value as names of folders may have it; of a list its entries joined."""
    text = "-".join(map(_as_text, value)) if isinstance(value, list) else _as_text(value)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")


def _filled(
    node: Any, place: tuple[str, ...], row: Mapping[str, Any], taken: dict[str, str], problems: list[Problem]
) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, (*place, key), row, taken, problems) for key, value in node.items()}
    if isinstance(node, list):
        labels = _labels(node) if place[-1] in ("mitigation", "evaluator") else map(str, range(1, len(node) + 1))
        return [_filled(item, (*place, label), row, taken, problems) for item, label in zip(node, labels, strict=True)]
    if not isinstance(node, str):
        return node
    alone = PLACEHOLDER.fullmatch(node)
    if alone and alone[1] in row:
        taken[".".join(place)] = alone[1]
        return copy.deepcopy(row[alone[1]])
    for name in dict.fromkeys(placeholders(node)):
        if isinstance(row.get(name), dict | list):
            reason = f"holds `{{{name}}}` within a text, and the value is {show(row[name])}"
            problems.append(Problem(".".join(place), reason, f'write "{{{name}}}" alone'))
    return PLACEHOLDER.sub(lambda found: _as_text(row[found[1]]) if found[1] in row else found[0], node)


def _labels(items: list[Any]) -> list[str]:
    """What messages call the parts of a list: by name where that tells them apart, else by number from 1."""
    names = [part_name(item) for item in items]
    return [name if name and names.count(name) == 1 else str(number) for number, name in enumerate(names, start=1)]


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
