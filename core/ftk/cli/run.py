"""``ftk run``: run a recipe and show what was learned beside what was lost."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ftk.cli.common import PathGiven, json_option, recipe_arguments, registry, third_party_option
from ftk.cli.once import is_first
from ftk.errors import Interrupted, visible
from ftk.plugin.registry import Registry
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe
from ftk.report.console import SafeConsole


@click.command("run", short_help="Run a recipe; go on where an earlier run of it was stopped.")
@recipe_arguments
@click.option("--output", type=PathGiven(path_type=Path), help="The run's folder. Default: runs/<name>.")
@click.option("--fresh", is_flag=True, help="Delete what the folder holds and start over.")
@click.option("--dry-run", is_flag=True, help="Read data and model, count rows and steps, train nothing.")
@click.option(
    "--share-stages", is_flag=True,
    help="Take stages that other runs have trained from the cache, and keep those of this run there.",
)  # fmt: skip
@click.option("--explain", is_flag=True, help="Show the stations of the run with the parts at each, and stop.")
@json_option
@third_party_option
def run(
    recipe: str,
    settings: tuple[str, ...],
    without: tuple[str, ...],
    output: Path | None,
    fresh: bool,
    dry_run: bool,
    share_stages: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Run RECIPE; go on where an earlier run of it in the same folder was stopped.

    Press Ctrl-C once to stop at the next step with everything saved; the same command goes on from there.
    """
    if explain and (as_json or dry_run):
        raise click.UsageError(f"--explain and --{'json' if as_json else 'dry-run'} do not go together")
    plugins = registry()
    loaded = load_recipe(recipe, overrides=settings, without=without, registry=plugins)
    if explain:
        from ftk.cli.explain import explain as make_tree

        console = SafeConsole(emoji=False)
        console.print(make_tree(loaded), highlight=False, soft_wrap=not console.is_terminal)
    elif dry_run:
        _dry_run(loaded, as_json)
    else:
        _run(loaded, plugins, output, without, fresh, share_stages, as_json)


def _run(
    recipe: Recipe,
    plugins: Registry,
    output: Path | None,
    without: tuple[str, ...],
    fresh: bool,
    share_stages: bool,
    as_json: bool,
) -> None:
    console = SafeConsole(stderr=as_json, quiet=as_json or not is_first(), emoji=False)
    console.soft_wrap = not console.is_terminal  # a line of a pipe or a log is one line, however long
    with console.status("loading libraries") if console.is_terminal else nullcontext():
        from ftk.comparing.stages import KeptStages
        from ftk.pictures.reading import read_story
        from ftk.pictures.sparklines import spark_lines
        from ftk.report.progress import ProgressDisplay
        from ftk.report.terminal import final_table, plain_text
        from ftk.running.runner import run as run_recipe

    for note in recipe.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    display, keeper = ProgressDisplay(console), KeptStages() if share_stages else None
    try:
        result = run_recipe(
            recipe, output=output, without=without, fresh=fresh, registry=plugins, observers=[display], keeper=keeper
        )
    except Interrupted as error:
        command = shlex.join(["ftk", *(argument for argument in sys.argv[1:] if argument != "--fresh")])
        raise Interrupted(f"{error}\n  go on with: {command}") from error
    finally:
        display.close()
    if not is_first():
        return  # of several processes one tells the result
    if as_json:
        click.echo(json.dumps(result.report, indent=2, ensure_ascii=False))
        return
    if not display.started:
        console.print("this run is finished; --fresh starts it over", highlight=False, markup=False)
    if console.is_terminal:
        console.print(final_table(result.report))
        if (console.encoding or "").lower().startswith("utf"):
            lines = spark_lines(read_story(result.folder).stages, console.width)
            console.print(*lines, sep="\n", end="\n\n" if lines else "")
    else:
        click.echo(plain_text(result.report), nl=False)
    written = "model, report.html and" if (result.folder / "report.html").is_file() else "model and"
    console.print(f"{written} report.json: {result.folder}", highlight=False, markup=False)


def _dry_run(recipe: Recipe, as_json: bool) -> None:
    from ftk.running.runner import dry_run

    plan: list[dict[str, Any]] = dry_run(recipe)
    if not is_first():
        return
    if as_json:
        click.echo(json.dumps(plan, indent=2, ensure_ascii=False))
        return
    for stage in plan:
        click.echo(
            f"stage {visible(stage['name'])}: {stage['rows']:,} rows, {stage['tokens_per_epoch']:,} tokens an epoch, "
            f"{stage['steps']:,} steps of {stage['batch']}, "
            f"{stage['trainable_parameters']:,} of {stage['total_parameters']:,} parameters trained"
        )
        for source in stage["sources"]:
            click.echo(f"  mixed in: {visible(source['name'])}, {source['share']:.1%} of the rows")
    click.echo("nothing was trained; rows that were encoded are kept for the run")
