"""``ftk check``: whether a recipe is right, and what it will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import click
from rich.text import Text

from ftk.cli.common import (
    console,
    json_option,
    print_json,
    print_note,
    print_table,
    recipe_arguments,
    registry,
    third_party_option,
)
from ftk.errors import RecipeError, UserError
from ftk.plugin.options import Options
from ftk.recipe.complaints import show
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import PartSpec, Recipe, StageSpec, parts_written


@click.command()
@recipe_arguments
@json_option
@third_party_option
def check(recipe: str, settings: Sequence[str], without: Sequence[str], as_json: bool) -> None:
    """Check RECIPE without running it: every key, every type, and whether the parts fit each other.

    All problems are told at once. Nothing is loaded or downloaded: data files are first read by `ftk run`.
    """
    try:
        found = load_recipe(recipe, overrides=settings, without=without, registry=registry())
    except UserError as error:
        if not as_json:
            raise
        problems = [asdict(problem) for problem in error.problems] if isinstance(error, RecipeError) else [
            {"path": "", "reason": error.message, "hint": error.hint}
        ]  # fmt: skip
        print_json({"schema": 1, "ok": False, "problems": problems})
        raise click.exceptions.Exit(error.exit_code) from error
    if as_json:
        print_json(
            {
                "schema": 1,
                "ok": True,
                "sha256": found.sha256,
                "notes": found.notes,
                "recipe": found.resolved(),
            }
        )
        return
    print_summary(found)


def print_summary(recipe: Recipe) -> None:
    """Print what a recipe will do: its parts with the options that it sets, stage by stage."""
    out = console()
    count = "1 stage" if len(recipe.stages) == 1 else f"{len(recipe.stages)} stages"
    out.print(Text.assemble((recipe.name, "bold"), f"  {count}, seed {recipe.seed}, ", (recipe.sha256[:12], "dim")))
    rows = [["model", describe(recipe.model)]]
    if recipe.retain is not None:
        rows.append(["retain", describe(recipe.retain)])
        rows += [["", f"validation {describe(recipe.retain_validation)}"]] if recipe.retain_validation else []
        rows += [["", f"test {describe(recipe.retain_test)}"]] if recipe.retain_test else []
    print_table(out, (), [_indented(row) for row in rows], wide=1)
    for number, stage in enumerate(recipe.stages, start=1):
        out.print()
        out.print(Text(f"stage {number}: {stage.name}", style="bold cyan"))
        print_table(out, (), [_indented(row) for row in _stage_rows(stage)], wide=1)
    for note in recipe.notes:
        out.print()
        print_note(out, note)
    out.print()
    out.print(Text("the recipe is right", style="green"))


def describe(spec: PartSpec) -> str:
    """A part on one line: its name and the options that the recipe sets."""
    named = spec.name if spec.name == spec.variant.name else f"{spec.name} ({spec.variant.name})"
    through = "".join(f" > {describe(transform)}" for transform in spec.transforms)
    if spec.kind in ("evaluator", "mitigation"):
        parts = [(part.name, replace(part, name=part.variant.name)) for part in spec.parts]
        inside = "".join(f", {option}: {describe(part)}" for option, part in parts)
    else:
        inside = f" of {', '.join(_part(spec, part) for part in spec.parts)}" if spec.parts else ""
    return " ".join([named, *_given(spec.options)]) + inside + through


def _part(spec: PartSpec, part: PartSpec) -> str:
    """A part of a data set or an objective, and what that says of it beside its table."""
    own = spec.resolved()["options"][parts_written(spec.options)[0]][part.name]
    return " ".join([describe(part), *(f"{key}={show(value)}" for key, value in own.items() if value is not None)])


def _stage_rows(stage: StageSpec) -> list[list[str]]:
    data = stage.data
    rows = [
        ["objective", describe(stage.objective)],
        ["adaptation", describe(stage.adaptation)],
        ["train", describe(data.train)],
        ["validation", describe(data.validation) if data.validation else ""],
        ["test", describe(data.test) if data.test else ""],
        *(["probe", f"{name}: {describe(spec)}"] for name, spec in data.probes.items()),
        *(["mitigation", describe(spec)] for spec in stage.mitigations),
        *(["evaluator", describe(spec)] for spec in stage.evaluators),
        ["training", " ".join(_given(stage.training)) or "defaults"],
    ]
    return [row for row in rows if row[1]]


def _given(options: Options) -> list[str]:
    apart = {"parts", *options.data_sets()} if options.data_sets() else set()  # described one by one
    apart |= {"tasks"} if options.objectives() else set()
    apart |= set(options.merges())
    given = options.model_dump(mode="json", exclude_unset=True, exclude=apart)
    return [f"{key}={show(value)}" for key, value in given.items()]


def _indented(row: list[str]) -> list[str]:
    return [f"  {row[0]}", *row[1:]]
