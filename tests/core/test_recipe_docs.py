"""The recipe reference says what the code does: its recipes are right, its tables complete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from ftk.cli.show import option_rows
from ftk.plugin.discovery import load_registry
from ftk.plugin.options import Options
from ftk.recipe import optimizers, schedules
from ftk.recipe.levels import DATA_KEYS, RETAIN_KEYS
from ftk.recipe.overrides import STAGE_KEYS, TOP_KEYS
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.sequence import SequenceOptions
from ftk.recipe.training import Training

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPES = [text for text in re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL) if text.startswith("name")]


def section(title: str) -> str:
    """The text below one heading."""
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def first_table(text: str) -> list[str]:
    """The lines of a text's first table, without its head."""
    found = re.search(r"^\| `.*\n(\| `.*\n?)*", text, re.MULTILINE)
    return found[0].splitlines() if found else []


def table_rows(title: str) -> list[list[str]]:
    """The rows of a section's first table, as cells; the first cell without its backticks."""
    rows = [line.strip("| ").split(" | ") for line in first_table(section(title))]
    return [[row[0].strip("`"), *row[1:]] for row in rows]


@pytest.mark.parametrize("text", RECIPES, ids=["single", "pipeline", "sequence"])
def test_whole_recipes_are_right(text: str) -> None:
    import tomllib

    recipe = recipe_from_table(tomllib.loads(text), "docs", text, registry=load_registry(third_party=False))
    assert recipe.notes == ()


def test_every_key_is_told_of() -> None:
    assert [row[0] for row in table_rows("The top of a recipe")] == list(TOP_KEYS)
    assert {row[0] for row in table_rows("Data")} == {*DATA_KEYS, *RETAIN_KEYS}
    assert all(f"`{key}`" in section("Stages") for key in STAGE_KEYS)


def test_the_options_of_training_are_told_of() -> None:
    told = {row[0]: row[1:] for row in table_rows("Training")}
    rows = {name: (kind, default) for name, kind, default, _ in option_rows(Training)}
    assert list(told) == list(rows)
    for name, (kind, default) in rows.items():
        written_kind, written_default, _ = told[name]
        assert re.sub("[`,]", "", written_kind).replace(" or", "") == re.sub("[`,]", "", kind).replace(" or", "")
        if name != "epochs":
            assert written_default.strip("`") == default
    assert Training().epochs is None


def test_the_options_of_a_sequence_are_told_of() -> None:
    told = {row[0]: row[1:] for row in table_rows("Sequences")}
    assert {name: row[-1].removesuffix(" At most 1000.") for name, row in told.items()} == {
        name: field.description for name, field in SequenceOptions.model_fields.items()
    }


CHOICES = {
    made.model_fields["use"].annotation.__args__[0]: made  # type: ignore[union-attr]
    for room in (optimizers, schedules)
    for made in vars(room).values()
    if isinstance(made, type) and issubclass(made, Options) and "use" in made.model_fields
}
"""What keys of [training] choose between, by name."""


@pytest.mark.parametrize("name", CHOICES)
def test_the_options_of_what_training_chooses_are_told_of(name: str) -> None:
    rows = [row for row in option_rows(CHOICES[name]) if row[0] != "use"]
    if not rows:
        assert re.search(rf"`{name}`[^`]* (and `\w+` )?have no options", section("Training")) is not None
        return
    told = first_table(section("Training").split(f"\n`{name}`, ")[1])
    assert plain(told) == plain(" | ".join(["", *row, ""]).strip() for row in rows)


def plain(lines: Iterable[str]) -> list[str]:
    """Lines without what the page and ``ftk show`` write differently."""
    return [re.sub("[`,]", "", line).replace(" or", "") for line in lines]
