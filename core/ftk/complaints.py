"""Turns pydantic's validation errors into problems of a recipe, in the words of recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ftk.errors import Problem, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], table: Mapping[str, Any]) -> Model:
    """Make ``model`` from a TOML table, strictly: ``"3"`` is no number and ``1`` is no boolean.

    The table travels as JSON because strict mode then still takes lists for tuples and text for paths.

    Raises:
        ValidationError: the table does not fit; :func:`explain` makes problems of it.
    """
    return model.model_validate_json(json.dumps(table, default=str), strict=True)


def explain(
    error: ValidationError,
    table: Mapping[str, Any],
    path: str,
    fields: Mapping[str, str],
    reserved: Iterable[str] = (),
) -> list[Problem]:
    """One problem for each wrong key of ``table``.

    Args:
        error: what :func:`validate` raised.
        table: what was validated.
        path: the table's place in the recipe.
        fields: the valid keys with their descriptions.
        reserved: further keys that are valid in the table, for "did you mean".
    """
    reasons: dict[str, list[str]] = {}
    hints: dict[str, str] = {}
    values: dict[str, str] = {}
    for item in error.errors(include_url=False):
        kind, place = item["type"], _place(item["loc"], table, item["type"])
        where = ".".join([*([path] if path else []), *place])
        reason, names_value = _reason(item)
        if reason not in reasons.setdefault(where, []):
            reasons[where].append(reason)
        if names_value:
            values[where] = f", got {show(item['input'])}"
        if kind == "extra_forbidden":
            top = len(item["loc"]) == 1
            hints[where] = did_you_mean(str(item["loc"][-1]), [*fields, *reserved]) if top else ""
        elif kind == "missing":
            hints[where] = fields.get(str(item["loc"][-1]), "")
        elif kind == "literal_error" and isinstance(item["input"], str):
            choices = [
                choice.strip(" '") for choice in item["ctx"]["expected"].replace(" or ", ",").split(",")
            ]
            near = did_you_mean(item["input"], choices)
            hints[where] = near if near.startswith("did you") else ""
    return [
        Problem(where, f"{' or '.join(texts)}{values.get(where, '')}", hints.get(where, ""))
        for where, texts in reasons.items()
    ]


def show(value: Any) -> str:
    """A TOML value as it fits into a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(show(item) for item in value)}]"
        return text if len(text) <= 40 else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def _place(loc: tuple[int | str, ...], table: Any, kind: str) -> list[str]:
    """``loc`` without pydantic's names of union members, list positions counted from 1."""
    place, value = [], table
    for step in loc:
        inside = (
            step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        )
        if inside:
            value = value[step]
            place.append(str(step + 1) if isinstance(step, int) else step)
    if kind == "missing":
        place.append(str(loc[-1]))
    return place


_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "finite_number": "must be a finite number",
}
_TYPES = {
    "int_": "a whole number",
    "float_": "a number",
    "decimal_": "a number",
    "bool_": "true or false",
    "string_type": "text",
    "string_sub": "text",
    "path_type": "text, a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "mapping_type": "a table",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
    "too_short": ("at least", "min_length", "entries"),
    "too_long": ("at most", "max_length", "entries"),
}


def _reason(item: Any) -> tuple[str, bool]:
    """What is wrong, and whether the value belongs into the message."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in ("missing", "extra_forbidden"):
        return _WORDS[kind], False
    if kind in _WORDS:
        return _WORDS[kind], True
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context[key]}", True
    if kind in _LENGTHS:
        word, key, unit = _LENGTHS[kind]
        if context[key] == 1 and word == "at least":
            return "must not be empty", False
        return f"must have {word} {context[key]} {unit}", True
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}", True
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}", True
    if kind in ("value_error", "assertion_error"):
        return str(context["error"]) or "is not valid", False
    for prefix, word in _TYPES.items():
        if kind.startswith(prefix):
            return f"must be {word}", True
    return item["msg"][:1].lower() + item["msg"][1:], True
