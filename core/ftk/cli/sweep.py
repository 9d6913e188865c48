"""``ftk sweep``: a recipe at many settings: what each learned, what it kept, and which are worth it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from ftk.cli.common import (
    FiniteRange,
    PathGiven,
    console,
    json_option,
    print_json,
    print_table,
    recipe_arguments,
    registry,
    seeds_option,
    third_party_option,
)  # fmt: skip
from ftk.comparing.outcome import Outcome, describe, described, points_table, results
from ftk.comparing.runs import SWEEP
from ftk.comparing.spaces import read_spaces, setting
from ftk.comparing.study import PRUNERS, SAMPLERS, Study
from ftk.comparing.tables import estimate
from ftk.comparing.winning import needs_tomlkit, winning_recipe, write_new
from ftk.errors import Interrupted, UserError
from ftk.files import write_text
from ftk.pictures.reading import POINTS
from ftk.recipe.reading import load_recipe


@click.command()
@recipe_arguments
@click.option(
    "--over", "spaces", multiple=True, metavar="KEY=SPACE",
    help="Search this key: [a, b], log(1e-3, 10), uniform(0, 1), int(1, 16); a third number says how many points, of "
    "int how far apart. May be repeated.",
)  # fmt: skip
@click.option("--sampler", type=click.Choice(SAMPLERS), default="auto", show_default=True,
              help="How points are chosen; auto: a grid where every space has points, else tpe.")  # fmt: skip
@click.option("--pruner", type=click.Choice(PRUNERS), default="none", show_default=True,
              help="Ends points early that look worse than others did.")  # fmt: skip
@click.option("--trials", type=click.IntRange(1), help="Points in all. Default: the whole grid, or 20.")
@seeds_option
@click.option("--sampler-seed", type=int, default=0, show_default=True, help="Of the sampler.")
@click.option("--on", "split", type=click.Choice(["validation", "test"]), default="validation", show_default=True,
              help="The rows to choose by. Scores on rows that were chosen by are too good.")  # fmt: skip
@click.option("--metric", metavar="NAME", help="Compare all tasks by this metric. Default: each task's first.")
@click.option("--floor", type=FiniteRange(0, 1), default=0.95, show_default=True,
              help="The retention that the best point must have.")  # fmt: skip
@click.option("--best", type=PathGiven(path_type=Path), help="Write the recipe of the best point to this file.")
@click.option("--output", type=PathGiven(path_type=Path), help="The sweep's folder. Default: runs/<name>-sweep.")
@click.option("--storage", metavar="URL", help="A database that several machines share. Default: a file in the folder.")
@click.option("--study", "study_name", metavar="NAME", help="Its name in the database. Default: the recipe's.")
@click.option("--keep-models", is_flag=True, help="Keep the weights of every point.")
@json_option
@third_party_option
def sweep(
    recipe: str,
    settings: tuple[str, ...],
    without: tuple[str, ...],
    spaces: tuple[str, ...],
    sampler: str,
    pruner: str,
    trials: int | None,
    seeds: tuple[int, ...],
    sampler_seed: int,
    split: str,
    metric: str | None,
    floor: float,
    best: Path | None,
    output: Path | None,
    storage: str | None,
    study_name: str | None,
    keep_models: bool,
    as_json: bool,
) -> None:
    """Run RECIPE at many points, and show which learned most and which kept most.

    Stages that points share are trained once. The same command goes on with a sweep that was stopped; started several
    times at once, also on other machines with --storage, its processes share the points.
    """
    plugins = registry()
    searched = tuple(read_spaces(spaces))
    if any(space.key == "seed" for space in searched):
        raise UserError("--over seed: a seed is nothing to choose", "write --seeds 0,1,2")
    if any(space.key == "name" for space in searched):
        raise UserError("--over name: a name changes no result", "search another key")
    if best is not None and best.exists():
        raise UserError(f"{best}: there is such a file already", "choose another name for the recipe")
    if best is not None:
        needs_tomlkit()
    first = [setting(space, space.ends[0]) for space in searched]
    base = load_recipe(recipe, overrides=[*settings, *first], without=without, registry=plugins)
    seeds = seeds or (base.seed,)
    watched = split == "validation" and any(stage.training.evaluate_every for stage in base.stages)
    if pruner != "none" and len(seeds) == 1 and not watched:
        hint = "choose --on validation, with --set training.evaluate_every=50, or add --seeds"
        raise UserError(f"--pruner {pruner}: nothing is measured before a point of one seed ends", hint)
    folder = output or Path("runs") / f"{base.name}-sweep"
    told = console()
    with told.status("loading libraries"):
        from ftk.comparing.claiming import claim
        from ftk.comparing.sweeping import Sweep, Swept
        from ftk.pictures.page import write_page

    swept = Swept(Path(recipe), settings, without, searched, seeds, split == "validation", metric)
    swept.check(plugins)
    claim(folder, SWEEP, "sweep", swept.first(plugins))
    study = Study(
        storage or str(folder / "study.log"), swept.identity(plugins), name=study_name or base.name, spaces=searched,
        sampler=sampler, pruner=pruner, trials=trials, seed=sampler_seed,
    )  # fmt: skip
    try:
        Sweep(
            swept, study, folder, plugins, lambda line: click.echo(line, err=as_json), floor=floor,
            keep_models=keep_models,
        ).run()  # fmt: skip
    except Interrupted as error:
        raise Interrupted(f"{error}\n  go on with: {shlex.join(['ftk', *sys.argv[1:]])}") from error
    done = Outcome(results(study), study.points(), floor)
    if best is not None and done.best is not None:
        values = [setting(space, done.best.point.values[space.key]) for space in searched]
        head = f"The best point of a sweep, of those that kept {floor:.0%}: {described(done.best)}."
        write_new(best, winning_recipe(Path(recipe), [*settings, *values], without, head))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / POINTS, json.dumps(points_table(base.name, done), indent=2, ensure_ascii=False), alone=False)
    page = write_page(folder)
    if as_json:
        print_json(done.to_json())
        return
    _show(told, done, split, best)
    told.print(f"page: {page}", style="dim")


def _show(out: Console, done: Outcome, split: str, best: Path | None) -> None:
    """Print the points, the best one and the front first."""
    columns = ("", "point", "target", "retention", "seconds")
    ordered = sorted(done.found, key=lambda result: (result is not done.best, not result.front, result.point.number))
    rows = []
    for result in ordered:
        word = "best" if result is done.best else "front" if result.front else ""
        target, kept = (estimate(result.estimate(name), name == "retention") for name in ("target", "retention"))
        rows.append((word, describe(result.point.values), target, kept, f"{result.found['costs']['seconds']:,.0f}"))
    if rows:
        print_table(out, columns, rows, wide=1)
    for state, many in done.ended().items():
        out.print(f"{many} {'point' if many == 1 else 'points'} {state}", style="dim")
    if done.best is None:
        return
    out.print(f"scores: on {split} rows; front: no other point is better in both", style="dim")
    if done.best.kept < done.floor:
        out.print(f"no point kept {done.floor:.0%}; the best is the one that kept most", style="dim")
    if best is not None:
        out.print(f"recipe of the best point: {best}", style="dim")
