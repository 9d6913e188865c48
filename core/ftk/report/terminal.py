"""The table that a run ends with: what was learned and what was lost, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ftk.report.console import SafeConsole
from ftk.report.rows import MANY, ScoreRow, number, percent, said_of, score_rows
from ftk.report.samples import sample_lines
from ftk.report.scores import Scores

SUMMED = 3
"""From so many tasks on, the numbers that sum them up are shown."""


def final_table(report: Mapping[str, Any]) -> Group:
    """The scores of a ``report.json`` as a table for the terminal, and one sentence under it.

    Green is what was learned or kept, red what was not; an arrow marks metrics of which less is better. The
    text says the same without colours. It fits 80 columns. Answers that the model gave stand below, before and after.
    """
    scores = Scores.from_json(report)
    rows, samples = score_rows(scores), sample_lines(report)
    if not rows and not samples:
        return Group(Text("nothing was measured: the recipe has no evaluators"))
    table: list[Table | Text] = [_table(rows), *_summaries(scores), verdict(rows)] if rows else []
    return Group(*table, *samples)


def plain_text(report: Mapping[str, Any], width: int = 80) -> str:
    """:func:`final_table` without colours, for pipes and files."""
    written = StringIO()
    SafeConsole(file=written, width=width, no_color=True, force_terminal=False).print(final_table(report))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def verdict(rows: Iterable[ScoreRow]) -> Text:
    """What was learned, kept and lost, by the first metric of each task, in one line."""
    line = Text()
    for heading, told in said_of(rows).items():
        line.append(f"{' ' if line else ''}{heading}: ", style=_COLOUR[heading in ("Learned", "Kept")])
        line.append(f"{told}.")
    return line


def _summaries(scores: Scores) -> Iterator[Text]:
    """What sums up the tasks of a metric, a line for each, where there are so many that one must ask."""
    if len(scores.tasks) < SUMMED:
        return
    for metric in scores.metrics:
        found = [(key, value) for key, value in scores.summary(metric).items() if value is not None]
        if found and "@" not in metric:
            told = ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in found)
            yield Text.assemble((f"{metric}: ", "bold"), told)


_COLOUR = {True: "green", False: "red", None: ""}


def _table(rows: list[ScoreRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Task", overflow="fold")
    table.add_column("Metric", overflow="fold")
    for heading in ("Start", "Learned", "End", "Kept"):
        table.add_column(heading, justify="right", no_wrap=True)
    task, apart = None, len({row.task for row in rows}) <= MANY
    for row in rows:
        if task is not None and row.task != task and apart:
            table.add_section()
        table.add_row(
            Text("" if row.task == task else row.task),
            Text(f"  @{row.probe}" if row.probe else f"{row.metric}{'' if row.higher_is_better else ' ↓'}"),
            number(row.start),
            Text(number(row.learned), style=_COLOUR[row.was_learned]),
            Text(number(row.end), style=_COLOUR[row.was_learned if row.best is None else row.was_kept]),
            Text(percent(row.retention), style=_COLOUR[row.was_kept]),
        )
        task = row.task
    return table
