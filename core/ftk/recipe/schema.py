"""The JSON schema of recipes, for editors: built from the options of every variant that is installed."""

from __future__ import annotations

from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from ftk.errors import UserError
from ftk.plugin.options import Options
from ftk.plugin.registry import Entry, Registry
from ftk.plugin.variant import KINDS
from ftk.recipe.levels import OVERLAPS, PART_NAME, RETAIN_KEYS
from ftk.recipe.overrides import UNSET
from ftk.recipe.reading import SEEDS
from ftk.recipe.sequence import SequenceOptions
from ftk.recipe.templates import PLACEHOLDER
from ftk.recipe.training import Training

Schema = dict[str, Any]


def recipe_schema(registry: Registry) -> Schema:
    """The schema (draft 2020-12) of a recipe's table.

    What a schema cannot say, such as unmet needs, ``ftk check`` says. A variant whose options cannot be
    imported is there with none of its keys.
    """
    definitions: dict[str, Schema] = {}
    for kind in KINDS:
        entries = registry.entries(kind)
        refs = [{"$ref": _define(definitions, entry)} for entry in entries]
        definitions[kind] = {"oneOf": refs} if refs else {"not": {}}
    definitions["training"] = _lifted(definitions, "training", Training)
    for key in UNSET:
        forms = definitions["training"]["properties"][key]["anyOf"]
        forms[forms.index({"type": "null"})] = {"const": False, "description": "Takes the default's back."}
    _make_fillable(definitions["training"]["properties"])
    definitions["sequence"] = _lifted(definitions, "sequence", SequenceOptions)
    definitions["placeholder"] = {
        "type": "string",
        "pattern": f"^{PLACEHOLDER.pattern}$",
        "description": "What a sequence puts here.",
    }
    definitions["name"] = {"type": "string", "pattern": f"^{PART_NAME.pattern}$", "maxLength": 100}
    for kind in ("objective", "adaptation"):
        changed = {
            "type": "object",
            "not": {"required": ["use"]},
            "description": "Changes the default's options.",
        }
        definitions[f"stage_{kind}"] = {"anyOf": [_ref(kind), changed]}
    data, retained = _data(), {key: _ref("dataset") for key in RETAIN_KEYS}
    common = {
        "name": _ref("name"),
        "mitigation": {"type": "array", "items": _ref("mitigation")},
        "evaluator": {"type": "array", "items": _ref("evaluator")},
        "training": _ref("training"),
        "sequence": _ref("sequence"),
    }
    stage = _table(
        {
            **common, "objective": _ref("stage_objective"), "adaptation": _ref("stage_adaptation"),
            "data": _table(data),
        },
        required=["name"],
    )  # fmt: skip
    top = {
        **common,
        "seed": {"type": "integer", "minimum": 0, "maximum": SEEDS - 1, "default": 0},
        "model": _ref("model"),
        "objective": _ref("objective"),
        "adaptation": _ref("adaptation"),
        "data": _table({**data, **retained}),
        "stage": {"type": "array", "minItems": 1, "items": stage},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ftk recipe",
        **_table(top, required=["name", "model"]),
        "anyOf": [{"required": ["objective", "adaptation", "data"]}, {"required": ["stage"]}],
        "$defs": definitions,
    }


def _define(definitions: dict[str, Schema], entry: Entry) -> str:
    """Define one variant's table and return the reference to it."""
    key = f"{entry.kind}.{entry.distribution}.{entry.variant.name}"
    try:
        table = _lifted(definitions, key, entry.options_class())
    except (UserError, PydanticInvalidForJsonSchema):
        table = {"type": "object", "properties": {}}
    names = [entry.qualified] if entry.status == "conflict" else [entry.variant.name, entry.qualified]
    own: Schema = {"use": {"enum": names, "description": entry.variant.summary}, "name": _ref("name")}
    if entry.kind == "dataset":
        own["transform"] = {"type": "array", "items": _ref("transform")}
    _make_fillable(table.get("properties", {}))
    table["properties"] = {**own, **table.get("properties", {})}
    table["required"] = ["use", *table.get("required", [])]
    definitions[key] = table
    return f"#/$defs/{key}"


def _lifted(definitions: dict[str, Schema], key: str, options: type[Options]) -> Schema:
    """The table of some options; the definitions that it refers to are moved up among the recipe's."""
    table = options.model_json_schema(ref_template=f"#/$defs/{key}.{{model}}")
    for name, definition in table.pop("$defs", {}).items():
        definitions[f"{key}.{name}"] = definition
    return table


def _make_fillable(properties: dict[str, Schema]) -> None:
    """Let each option be what a sequence fills in: a text that is one name in braces."""
    for key, schema in properties.items():
        told: Schema = {word: schema.pop(word) for word in ("title", "description", "default") if word in schema}
        properties[key] = {"anyOf": [schema, _ref("placeholder")], **told}


def _data() -> dict[str, Schema]:
    roles = {role: {"anyOf": [_ref("dataset"), _ref("placeholder")]} for role in ("train", "validation", "test")}
    probes = {"type": "object", "propertyNames": _ref("name"), "additionalProperties": _ref("dataset")}
    return {**roles, "probes": probes, "overlap": {"enum": list(OVERLAPS), "default": OVERLAPS[0]}}


def _table(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    table: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**table, "required": required} if required else table


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}
