"""``ftk compare``: finished runs side by side: what each learned, kept and took."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from ftk.cli.common import FiniteRange, PathGiven, console, json_option, print_json, print_table
from ftk.comparing.comparison import Comparison
from ftk.comparing.comparison import compare as compare_runs
from ftk.comparing.runs import ablated, read_runs
from ftk.comparing.tables import FORMATS, as_csv, latex, markdown, notes, texts

metric_option = click.option(
    "--metric", metavar="NAME", help="Compare all tasks by this metric. Default: each task's first."
)
watts_option = click.option(
    "--watts", type=FiniteRange(0, min_open=True),
    help="What a device draws, for the energy. Default: 65 for a CPU, 30 for Apple's, 400 for another GPU.",
)  # fmt: skip


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PathGiven(path_type=Path))
@metric_option
@watts_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Of the tables.")
@json_option
def compare(runs: tuple[Path, ...], metric: str | None, watts: float | None, form: str, as_json: bool) -> None:
    """Show RUNs side by side, each against the first: target, retention, cost, with 95% intervals.

    RUN is the folder of a finished run, or of an ablation. Runs of one recipe that differ in their seeds alone make
    one line. Runs that were measured on different rows are refused.
    """
    if as_json and form != "text":
        raise click.UsageError(f"--json and --format {form} do not go together")
    names: dict[Path, str] = {}
    for path in runs:
        names |= ablated(path) or {path: ""}
    read = read_runs(names)
    labels = {run.recipe_key: names[run.path] for run in read if names[run.path]}
    found = compare_runs(read, metric=metric, watts=watts, labels=labels)
    if as_json:
        print_json(found.to_json())
    else:
        print_comparison(console(), found, form)


def print_comparison(out: Console, comparison: Comparison, form: str = "text") -> None:
    """Print the tables of a comparison in one of :data:`ftk.comparing.tables.FORMATS`."""
    if form != "text":
        click.echo({"markdown": markdown, "latex": latex, "csv": as_csv}[form](comparison), nl=False)
        return
    for whole in texts(comparison):
        for table in whole.fitted(out.width) if out.is_terminal else [whole]:
            print_table(out, table.columns, table.rows, wide=0)
            out.print()
    for note in notes(comparison):
        out.print(note, style="dim")
