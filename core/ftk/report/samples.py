"""Answers before and after beside each other, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from ftk.recipe.naming import stage_of

SHOWN = 200
"""Characters of a text that are shown; the report has all."""


def sample_lines(report: Mapping[str, Any]) -> list[Text]:
    """What ``answers`` in the ``details`` of a report tell, each row's answers one below the other.

    Where a model was measured after more than two stages, the first and the last answer and that after the task's own
    stage are shown.
    """
    lines: list[Text] = []
    for name, told in report.get("details", {}).items():
        for task in report["tasks"]:
            entries = [entry for entry in told if entry["task"] == task and "answers" in entry]
            if entries:
                lines += _of_task(name, task, entries, [stage["name"] for stage in report["stages"]])
    return lines


def _of_task(name: str, task: str, entries: Sequence[Mapping[str, Any]], stages: Sequence[str]) -> Iterator[Text]:
    own = [entry for entry in entries[1:-1] if entry["after"] and stages[entry["after"] - 1] == stage_of(task)]
    shown = [entries[0], *own, *entries[1:][-1:]]
    labels = [f"after {stages[entry['after'] - 1]}" if entry["after"] else "start" for entry in shown]
    width = max(len("expected"), *map(len, labels))
    yield Text(f"\n{name} of {task}", style="bold")
    for number, row in enumerate(shown[0]["answers"]):
        yield Text(f"  row {row['row']}: {_one_line(row['prompt'])}")
        yield Text.assemble((f"    {'expected':{width}}  ", "dim"), _one_line(row["expected"]))
        for label, entry in zip(labels, shown, strict=True):
            yield Text.assemble((f"    {label:{width}}  ", "dim"), _one_line(entry["answers"][number]["answer"]))


def _one_line(text: str) -> str:
    line = text.strip().replace("\n", "⏎")
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
