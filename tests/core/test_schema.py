"""The JSON schema of recipes is a schema, and agrees with ``ftk check``."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from click.testing import CliRunner

from ftk.cli import cli
from ftk.plugin.registry import Registry
from ftk.recipe.overrides import override
from ftk.recipe.schema import recipe_schema
from tests.core.bad_choices import BAD_CHOICES
from tests.core.bad_recipes import BAD_RECIPES
from tests.core.bad_training import BAD_TRAINING
from tests.core.lab import GOOD, PIPELINE

BAD = BAD_RECIPES | BAD_CHOICES | BAD_TRAINING

UNSCHEMED = {
    "nothing to look ahead by", "two warm-ups", "a warm-up without an end", "warm-up and decay of more than all",
    "steps in rows and in tokens", "passes in rows of steps in tokens", "passes in tokens of steps in rows",
    "flash attention that is not installed", "flash attention in float32",
}  # fmt: skip
"""What is wrong with [training] and beyond a schema."""


@pytest.fixture
def validator(lab: Registry) -> Any:
    """Validates against the schema."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = recipe_schema(lab)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_it_is_printed() -> None:
    assert (
        json.loads(CliRunner().invoke(cli, ["schema"]).stdout)["$schema"]
        == "https://json-schema.org/draft/2020-12/schema"
    )


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        PIPELINE,
        GOOD.replace('"mix"', '"ftk-lab/mix"'),
        GOOD + 'optimizer = "muon"',
        GOOD + 'optimizer = { use = "sgd", momentum = 0.5 }',
        GOOD + "optimizer = { beta2 = 0.99 }",
        GOOD + "early_stopping = false",
    ],
)
def test_good_recipes_are_valid(text: str, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "name",
    [
        "unknown key at the top", "unknown option", "unknown key in training", "unknown key in data",
        "unknown key in a stage", "model in a stage", "retain in a stage", "text for a whole number",
        "number out of range", "no such choice", "required option missing", "seed too large", "overlap",
        "name with a slash", "stage without a name", "text for a part", "single brackets", "no stage",
        "transform of a table", "no use", "unknown variant", "another kind", "empty",
        *(name for name in BAD_TRAINING if name not in UNSCHEMED),
    ],
)  # fmt: skip
def test_bad_recipes_are_not(name: str, validator: Any) -> None:
    table = override(tomllib.loads(BAD[name].text), "recipe", BAD[name].settings, ())
    assert not validator.is_valid(table)
