"""``ftk show``: one variant with its options as a table, its source, and a fragment to copy into a recipe."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import click
from pydantic.fields import FieldInfo
from rich.text import Text

from ftk.cli.common import console, json_option, print_json, print_table, registry, third_party_option
from ftk.errors import UserError, did_you_mean
from ftk.plugin.options import Options
from ftk.plugin.registry import Entry, Registry, canonical
from ftk.plugin.variant import KINDS


@click.command()
@click.argument("plugin")
@json_option
@third_party_option
def show(plugin: str, as_json: bool) -> None:
    """Show what PLUGIN does, its options with their defaults, its source and an example.

    PLUGIN is a variant's name, or kind/name, or distribution/name.
    """
    entry = find_variant(registry(), plugin)
    options = entry.options_class()
    rows = option_rows(options)
    variant = entry.variant
    if as_json:
        print_json({
            "schema": 1, "kind": entry.kind, "name": variant.name, "summary": variant.summary,
            "distribution": entry.distribution, "version": entry.version, "status": entry.status,
            "needs": variant.needs, "provides": variant.provides, "paper": variant.paper,
            "options": [dict(zip(("name", "type", "default", "meaning"), row, strict=True)) for row in rows],
            "example": example(entry, options),
        })  # fmt: skip
        return
    out = console()
    out.print(Text.assemble((variant.name, "bold"), f"  {entry.kind}, from {entry.distribution} {entry.version}"))
    out.print(variant.summary)
    out.print()
    facts = {
        "needs": ", ".join(variant.needs),
        "provides": ", ".join(variant.provides),
        "source": variant.paper,
    }
    facts["status"] = entry.reason
    told = [[key, value] for key, value in facts.items() if value]
    if told:
        print_table(out, (), told, wide=1)
        out.print()
    if rows and out.is_terminal:
        told = [[name, f"{kind}; {_said_default(default)}\n{meaning}"] for name, kind, default, meaning in rows]
        print_table(out, (), told, wide=1)
        out.print()
    elif rows:
        print_table(out, ("option", "type", "default", "meaning"), rows, wide=3)
        out.print()
    out.print(Text("in the file of a merge" if entry.kind == "merge" else "in a recipe", style="dim"))
    out.print(Text(example(entry, options), style="cyan"), end="")


def find_variant(found: Registry, wanted: str) -> Entry:
    """The variant that ``name``, ``kind/name``, ``distribution/name`` or ``kind/distribution/name`` names.

    Raises:
        UserError: there is none, or several.
    """
    first, slash, rest = wanted.partition("/")
    kind = first.removesuffix("s")
    if slash and kind in KINDS:
        return found.find(kind, rest)
    distribution, _, name = wanted.rpartition("/")
    entries = [
        entry for entry in found.entries()
        if entry.variant.name == name and canonical(distribution) in ("", canonical(entry.distribution))
    ]  # fmt: skip
    if len(entries) == 1:
        return entries[0]
    if entries:
        choices = ", ".join(f"{entry.kind}/{entry.qualified}" for entry in entries)
        raise UserError(f"`{wanted}` names several variants", f"name one of them: {choices}")
    hints = [did_you_mean(name, (entry.variant.name for entry in found.entries()))]
    broken = ", ".join(plugin.name for plugin in found.broken())
    if broken:
        hints.append(f"could not be loaded: {broken} (see ftk list-plugins)")
    raise UserError(f"there is no variant `{wanted}`", "; ".join(filter(None, hints)))


def option_rows(options: type[Options]) -> list[list[str]]:
    """Each option as its name, its type, its default and its meaning."""
    schema = options.model_json_schema()
    return [
        [
            name,
            _type(schema["properties"][name], schema.get("$defs", {})),
            _default(field),
            field.description or "",
        ]
        for name, field in _fields(options)
    ]


def example(entry: Entry, options: type[Options]) -> str:
    """A fragment of a recipe that uses the variant: options at their defaults, required ones and examples filled in."""
    schema = options.model_json_schema()
    values: dict[str, str] = {}
    for name, field in _fields(options):
        if field.is_required() or (entry.kind == "transform" and field.examples):
            values[name] = _placeholder(schema["properties"][name], schema.get("$defs", {}))
        elif entry.kind not in ("dataset", "transform") and _default(field) != "unset":
            values[name] = _default(field)
    use = entry.qualified if entry.status == "conflict" else entry.variant.name
    pairs = [f"{key} = {value}" for key, value in {"use": json.dumps(use), **values}.items()]
    inline = f"{{ {', '.join(pairs)} }}"
    if entry.kind == "dataset":
        return f"[data]\ntrain = {inline}\n"
    if entry.kind == "transform":
        return f'[data]\ntrain = {{ use = "files", path = "data.jsonl", transform = [{inline}] }}\n'
    if entry.kind == "merge":
        return "\n".join(["[method]", *pairs]) + "\n"
    head = f"[[{entry.kind}]]" if entry.kind in ("mitigation", "evaluator") else f"[{entry.kind}]"
    return "\n".join([head, *pairs]) + "\n"


def to_toml(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Options) and "use" in type(value).model_fields:
        return to_toml(value.use)  # type: ignore[attr-defined]
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(to_toml(item) for item in value)}]"
    if isinstance(value, dict):
        if not value:
            return "{}"
        return f"{{ {', '.join(f'{json.dumps(key)} = {to_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value) if isinstance(value, PurePath) else value, ensure_ascii=False, default=str)


_WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "table",
}
_LIMITS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in words: ``whole number > 0``, ``"linear" or "cosine"``, ``list of text``."""
    schema = _followed(schema, definitions)
    if "enum" in schema or "const" in schema:
        return " or ".join(to_toml(value) for value in schema.get("enum", [schema.get("const")]))
    if (union := schema.get("anyOf") or schema.get("oneOf")) is not None:
        members = [_followed(member, definitions) for member in union if member.get("type") != "null"]
        single = [_type(member, definitions) for member in members if member.get("type") != "array"]
        lists = [_type(member, definitions) for member in members if member.get("type") == "array"]
        if lists == [f"list of {text}" for text in single]:
            return f"{single[0]}, one or a list"
        return " or ".join(dict.fromkeys([*single, *lists]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), definitions)}"
    limits = [f"{sign} {_plain(schema[key])}" for key, sign in _LIMITS.items() if key in schema]
    return " ".join([_WORDS.get(schema.get("type", ""), "any value"), ", ".join(limits)]).strip()


def _plain(limit: int | float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _placeholder(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Some value of the right type for a required option."""
    schema = _followed(schema, definitions)
    if schema.get("examples"):
        return to_toml(schema["examples"][0])
    if "enum" in schema or "const" in schema:
        return to_toml(schema.get("enum", [schema.get("const")])[0])
    if "anyOf" in schema:
        return _placeholder(schema["anyOf"][0], definitions)
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    kind = schema.get("type")
    if kind == "array":
        return f"[{_placeholder(schema.get('items', {}), definitions)}]"
    values = {
        "integer": str(int(least) + 1),
        "number": str(float(least) + 0.5),
        "boolean": "true",
        "object": "{}",
    }
    return values.get(str(kind), '"..."')


def _followed(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **beside}
    return schema


def _fields(options: type[Options]) -> list[tuple[str, FieldInfo]]:
    """The options: those first that a recipe must give, then the variant's own, then those that it inherits."""
    own = options.__annotations__
    return sorted(options.model_fields.items(), key=lambda item: (not item[1].is_required(), item[0] not in own))


def _said_default(default: str) -> str:
    return default if default in ("required", "unset") else f"default {default}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "unset" if value is None else to_toml(value)
