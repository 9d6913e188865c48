"""Turns pydantic's validation errors into problems of a recipe, in the words of recipes."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ftk.errors import Problem, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def validate(
    model: type[Model], table: Mapping[str, Any], path: str, reserved: Iterable[str] = ()
) -> tuple[Model | None, list[Problem]]:
    """Make ``model`` from a TOML table, or say what is wrong with each of its keys.

    Unlike pydantic on its own, it takes neither ``"3"`` nor ``true`` for a number, nor ``1`` for a boolean.
    (Pydantic's strict mode is no help: it refuses the lists of TOML for tuples, and text for paths.)

    Args:
        model: what the table must fit.
        table: as TOML gave it.
        path: the table's place in the recipe.
        reserved: keys that are valid in the table and do not belong to the model; for "did you mean".
    """
    disguised = {
        ".".join(place): reason
        for key, value in table.items()
        if key in model.model_fields
        for place, reason in _disguised(model.model_fields[key].annotation, value, (path, key))
    }
    problems = [Problem(place, reason) for place, reason in disguised.items()]
    try:
        made = model.model_validate(table)
    except ValidationError as error:
        found = _explain(error, table, path, model, reserved)
        return None, problems + [problem for problem in found if problem.path not in disguised]
    return (None, problems) if problems else (made, [])


def show(value: Any) -> str:
    """A TOML value as it fits into a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        text = f"{{ {', '.join(f'{key} = {show(item)}' for key, item in value.items())} }}" if value else "{}"
        return text if len(text) <= 60 else "a table"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(show(item) for item in value)}]"
        return text if len(text) <= 40 else f"a list of {len(value)}"
    text = value.isoformat() if isinstance(value, datetime.date | datetime.time) else repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def _disguised(annotation: Any, value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where pydantic would read a scalar as one of another type, and what it must be instead."""
    members = list(_members(annotation))
    scalars = {member for member in members if isinstance(member, type)}
    if isinstance(value, list):
        for member in members:
            if get_origin(member) in (list, tuple, set, frozenset) and get_args(member):
                for number, item in enumerate(value, start=1):
                    yield from _disguised(get_args(member)[0], item, (*place, str(number)))
        return
    if isinstance(value, dict):
        for member in _models(annotation):
            if _goes_by(member, value.get("use")):
                for key in value.keys() & member.model_fields.keys():
                    yield from _disguised(member.model_fields[key].annotation, value[key], (*place, key))
        return
    if isinstance(value, bool):
        wrong = bool not in scalars and bool(scalars & {int, float})
    elif isinstance(value, str):
        wrong = str not in scalars and bool(scalars & {int, float, bool}) and _reads_as_scalar(value)
    else:
        wrong = scalars - {NoneType} == {bool} and len(members) == len(scalars)
    if wrong:
        word = "a number" if float in scalars else "a whole number" if int in scalars else "true or false"
        yield place, f"must be {word}, got {show(value)}"


def _members(annotation: Any) -> Iterator[Any]:
    """The types of a union, with a literal counted as the type of its values."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin is Literal:
        yield from (type(value) for value in get_args(annotation))
    else:
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The tables among the types of a union."""
    return [found for found in _members(annotation) if isinstance(found, type) and issubclass(found, BaseModel)]


def _goes_by(model: type[BaseModel], name: Any) -> bool:
    """Whether a table of this ``use`` is read as ``model``; one that needs no ``use`` goes by None too."""
    field = model.model_fields.get("use")
    if field is None:
        return name is None
    return name in get_args(field.annotation) or (name is None and not field.is_required())


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> dict[str, str]:
    """The keys, with their descriptions, of the table in which the last step of a pydantic location stands."""
    models = [model]
    for step in loc[:-1]:
        inside = [
            m for outer in models for key, f in outer.model_fields.items() if key == step for m in _models(f.annotation)
        ]
        models = inside or [m for m in models if m.__name__ == step or _goes_by(m, step)]
    return {key: field.description or "" for found in models for key, field in found.model_fields.items()}


def _reads_as_scalar(text: str) -> bool:
    if text.lower() in ("true", "false", "yes", "no", "on", "off", "y", "n", "t", "f"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _explain(
    error: ValidationError,
    table: Mapping[str, Any],
    path: str,
    model: type[BaseModel],
    reserved: Iterable[str],
) -> list[Problem]:
    """One problem for each wrong key: the complaints of a union's members are joined."""
    reasons: dict[str, list[str]] = {}
    hints: dict[str, str] = {}
    values: dict[str, str] = {}
    for item in error.errors(include_url=False):
        kind = item["type"]
        where = ".".join([path, *_place(item["loc"], table, kind)])
        reason, names_value = _reason(item)
        before = reasons.setdefault(where, [])
        if reason not in before:
            before.append(reason.removeprefix("must be ") if before else reason)
        if names_value:
            values[where] = f", got {show(item['input'])}"
        if kind == "extra_forbidden":
            key, top = str(item["loc"][-1]), len(item["loc"]) == 1
            moved = getattr(model, "MOVED", {}).get(key) if top else None
            hints[where] = moved or did_you_mean(key, [*_fields_at(model, item["loc"]), *(reserved if top else ())])
        elif kind == "missing":
            hints[where] = _fields_at(model, item["loc"]).get(str(item["loc"][-1]), "")
        elif kind == "union_tag_invalid":
            hints[where] = did_you_mean(item["ctx"]["tag"], item["ctx"]["expected_tags"].split("'")[1::2])
        elif kind == "literal_error" and isinstance(item["input"], str):
            near = did_you_mean(item["input"], item["ctx"]["expected"].split("'")[1::2])
            hints[where] = near if near.startswith("did you") else ""
    return [
        Problem(where, f"{' or '.join(texts)}{values.get(where, '')}", hints.get(where, ""))
        for where, texts in reasons.items()
        if not any(other.startswith(f"{where}.") for other in reasons)
    ]


def _place(loc: tuple[int | str, ...], table: Any, kind: str) -> list[str]:
    """``loc`` without pydantic's names of union members, list positions counted from 1."""
    place, value = [], table
    for step in loc:
        inside = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
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
    "path_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
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
        limit = context[key]
        return f"must be {word} {f'{limit:g}' if isinstance(limit, float) else limit}", True
    if kind in _LENGTHS:
        word, key, unit = _LENGTHS[kind]
        if context[key] == 1 and word == "at least":
            return "must not be empty", False
        return f"must have {word} {context[key]} {unit}", True
    if kind == "union_tag_invalid":
        return f"`{context['tag']}` is not known here", False
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}", True
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}", True
    if kind in ("value_error", "assertion_error"):
        return str(context["error"]) or "is not valid", False
    if kind == "model_attributes_type":  # pydantic's complaint where a union of tables is given no table
        return "must be a name or a table", True
    for prefix, word in _TYPES.items():
        if kind.startswith(prefix):
            return f"must be {word}", True
    return item["msg"][:1].lower() + item["msg"][1:], True
