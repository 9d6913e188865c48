"""``ftk ablate``: what each mitigation of a recipe is worth: variants of it, run and set side by side."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftk.cli.common import PathGiven, console, json_option, print_json, registry, seeds_option, third_party_option
from ftk.cli.compare import metric_option, print_comparison, watts_option
from ftk.comparing.comparison import Comparison, compare
from ftk.comparing.quality import Matrix, asked_of, check_metric, quality
from ftk.comparing.runs import ABLATION, read_run, read_runs
from ftk.comparing.tables import points
from ftk.errors import Interrupted, UserError, did_you_mean
from ftk.files import write_text
from ftk.pictures.reading import POINTS
from ftk.report.console import SafeConsole
from ftk.report.rows import number, percent

if TYPE_CHECKING:
    from ftk.comparing.series import Done, Planned
    from ftk.comparing.variants import LeftOut, Variant
    from ftk.recipe.specs import Recipe


@click.command()
@click.argument("recipe", type=PathGiven())
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe before it is varied, as in training.epochs=5. May be repeated.",
)
@seeds_option
@click.option("--output", type=PathGiven(path_type=Path), help="The folder of the runs. Default: runs/<name>-ablation.")
@metric_option
@watts_option
@click.option("--fresh", is_flag=True, help="Start all runs over.")
@json_option
@third_party_option
def ablate(
    recipe: str,
    settings: tuple[str, ...],
    seeds: tuple[int, ...],
    output: Path | None,
    metric: str | None,
    watts: float | None,
    fresh: bool,
    as_json: bool,
) -> None:
    """Run RECIPE as it is, without each mitigation, with none, with each alone, and on all tasks at once.

    Stages that variants share are trained once. Press Ctrl-C to stop with everything saved; the same command goes on,
    and does not run again what has finished. If a run fails the others go on, and the exit code is 1.
    """  # fmt: skip
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("`ftk ablate` runs in one process", "run variants with `ftk run --without`, then `ftk compare`")
    plugins = registry()
    out = SafeConsole(stderr=as_json, emoji=False, highlight=False)
    out.soft_wrap = not out.is_terminal
    with out.status("loading libraries") if out.is_terminal else nullcontext():
        from ftk.comparing.claiming import claim
        from ftk.comparing.series import Planned
        from ftk.comparing.variants import variants
        from ftk.pictures.page import write_page

    with out.status("reading recipe and rows") if out.is_terminal else nullcontext():
        found, left_out = variants(recipe, settings, plugins)
    full = found[0].recipe
    check_metric(full, metric)
    name, own = full.name, full.seed
    if seeds and any(setting.partition("=")[0].strip() == "seed" for setting in settings):
        raise click.UsageError("--seeds and --set seed=... do not go together")
    folder = output or Path("runs") / f"{name}-ablation"
    claim(folder, ABLATION, "ablation", full, fresh)
    planned = [
        Planned(variant.name, variant.seeded(seed), folder / variant.name / f"seed-{seed}")
        for variant in found
        for seed in seeds or (own,)
    ]
    out.print(f"{name}: {len(found)} variants, {len(planned)} runs, in {folder}", markup=False)
    for variant in found:
        out.print(f"  {variant.name}: {variant.summary}", markup=False)
    for gap in left_out:
        out.print(f"  left out: {gap.name}: {gap.reason}", markup=False)
    done = _run(planned, plugins, fresh, out, metric)
    comparison, failure = _compare(done, metric, watts)
    told = _as_json(full, folder, found, left_out, done, comparison)
    write_text(folder / ABLATION, json.dumps(told, indent=2, ensure_ascii=False) + "\n", alone=False)
    if comparison is not None:
        drawn = points(f"{name}: ablation", comparison, folder)
        write_text(folder / POINTS, json.dumps(drawn, indent=2, ensure_ascii=False) + "\n", alone=False)
        write_page(folder)
    failed = [each for each in done if each.error]
    if as_json:
        print_json(told)
    elif comparison is not None:
        out.print()
        print_comparison(console(), comparison)
        out.print(f"runs, report.html and ablation.json: {folder}", markup=False)
    for each in failed:
        lines = each.error.splitlines() or [""]
        out.print(f"failed: {each.planned.folder}: {lines[0]}", *[f"\n{line}" for line in lines[1:]], markup=False)
    if failure:
        out.print(f"the runs cannot be set side by side: {failure}", markup=False)
    if failed or failure:
        raise click.exceptions.Exit(1)


def _run(planned: Sequence[Planned], plugins: Any, fresh: bool, out: SafeConsole, metric: str | None) -> list[Done]:
    from ftk.comparing.series import Watcher, run_series
    from ftk.report.series import SeriesDisplay

    display = SeriesDisplay(out, len(planned))

    def named(one: Planned) -> str:
        return f"{one.name}, seed {one.recipe.seed}"

    class Told(Watcher):
        def began(self, number: int, planned: Planned) -> None:
            display.began(number, named(planned))

        def __call__(self, event: Any) -> None:
            display(event)

        def ended(self, number: int, done: Done, known: bool) -> None:
            failed = f"failed: {done.error.splitlines()[0] if done.error else ''}"
            told = failed if done.report is None else _told(done.planned.folder, metric, number == 1)
            display.ended(number, named(done.planned), told, known)

    try:
        return run_series(planned, plugins, Told(), fresh)
    except (Interrupted, KeyboardInterrupt) as error:
        command = shlex.join(["ftk", *(argument for argument in sys.argv[1:] if argument != "--fresh")])
        said = str(error) or "interrupted; what was finished is saved"
        raise Interrupted(f"{said}\n  go on with: {command}") from error
    finally:
        display.close()


def _told(folder: Path, metric: str | None, first: bool) -> str:
    """What a run learned and kept, in a few words.

    Raises:
        UserError: the first of all runs was not measured by the metric: nor would the others be.
    """
    try:
        run = read_run(folder)
    except UserError as error:
        return str(error)
    asked = asked_of(run.scores, metric)
    if asked is None and metric and first:
        raise UserError(f"--metric {metric}: {folder} was not measured by it", did_you_mean(metric, run.scores.metrics))
    if asked is None:
        return "nothing was measured"
    found = quality(Matrix(run, asked))
    kept = f", retention {percent(float(found['retention'][0]))}" if isfinite(found["retention"][0]) else ""
    return f"{asked.target} {number(float(found['target'][0]))}{kept}"


def _compare(done: Sequence[Done], metric: str | None, watts: float | None) -> tuple[Comparison | None, str]:
    """The finished runs side by side, or why they cannot be."""
    finished = [each for each in done if each.report is not None]
    if not finished:
        return None, ""
    try:
        runs = read_runs(each.planned.folder for each in finished)
        labels = {run.recipe_key: each.planned.name for run, each in zip(runs, finished, strict=True)}
        return compare(runs, metric=metric, watts=watts, labels=labels), ""
    except UserError as error:
        return None, str(error)


def _as_json(
    full: Recipe, folder: Path, found: Sequence[Variant], left_out: Sequence[LeftOut], done: Sequence[Done],
    comparison: Comparison | None,
) -> dict[str, Any]:  # fmt: skip
    runs = [
        {
            "variant": each.planned.name, "seed": each.planned.recipe.seed, "folder": str(each.planned.folder),
            "status": "failed" if each.report is None else "completed", "error": each.error,
        }
        for each in done
    ]  # fmt: skip
    return {
        "schema": 1, "name": full.name, "folder": str(folder), "recipe": full.resolved(),
        "variants": [{"name": variant.name, "summary": variant.summary} for variant in found],
        "left_out": [{"name": gap.name, "reason": gap.reason} for gap in left_out],
        "runs": runs, "comparison": comparison.to_json() if comparison else None,
    }  # fmt: skip
