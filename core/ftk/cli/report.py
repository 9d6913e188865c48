"""``ftk report``: the page of a run or a comparison, and its charts as files."""

from __future__ import annotations

from pathlib import Path

import click

from ftk.cli.common import PathGiven
from ftk.errors import visible


@click.command("report", short_help="Write the page of a run or of an ablation, and its charts as files.")
@click.argument("folder", type=PathGiven(path_type=Path))
@click.option(
    "--figures", type=PathGiven(path_type=Path), help="Also write each chart into this folder, as SVG and PNG."
)
def report(folder: Path, figures: Path | None) -> None:
    """Write report.html into FOLDER: a run's, also while it runs or after it was stopped, or an ablation's.

    The page is one file that needs no network: curves, scores, what was kept, where weights moved, answers, cost.
    """
    from ftk.pictures.page import write_figures, write_page

    written = write_figures(folder, figures) if figures is not None else []
    for path in (write_page(folder), *written):
        click.echo(visible(str(path)))
