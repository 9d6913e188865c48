"""Answers before and after beside each other, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ftk.recipe.naming import stage_of

SHOWN = 200
"""Characters of a text that are shown; the report has all."""


@dataclass(frozen=True)
class Answers:
    """What one evaluator was answered for one row of a task: by which model, and what.

    Attributes:
        name: the evaluator's.
        task: the task's.
        row: the row's number, from 1.
        prompt: what was asked.
        expected: the row's own answer.
        given: under the name of each model its answer, the starting model first.
    """

    name: str
    task: str
    row: int
    prompt: str
    expected: str
    given: dict[str, str]


def compared_answers(report: Mapping[str, Any]) -> Iterator[Answers]:
    """What ``answers`` in the ``details`` of a report tell, evaluator by evaluator and task by task.

    Where a model was measured after more than two stages, the first and the last answer and that after the task's own
    stage are shown.
    """
    stages = [stage["name"] for stage in report.get("stages", ())]
    for name, told in report.get("details", {}).items():
        for task in report["tasks"]:
            entries = [entry for entry in told if entry["task"] == task and "answers" in entry]
            if not entries:
                continue
            own = [e for e in entries[1:-1] if e["after"] and stages[e["after"] - 1] == stage_of(task)]
            shown = [entries[0], *own, *entries[1:][-1:]]
            labels = [f"after {stages[entry['after'] - 1]}" if entry["after"] else "start" for entry in shown]
            for at, row in enumerate(shown[0]["answers"]):
                given = {label: entry["answers"][at]["answer"] for label, entry in zip(labels, shown, strict=True)}
                yield Answers(name, task, row["row"], row["prompt"], row["expected"], given)


def sample_lines(report: Mapping[str, Any]) -> list[Text]:
    """:func:`compared_answers` as lines, each row's answers one below the other."""
    lines: list[Text] = []
    heading = ""
    for answers in compared_answers(report):
        if heading != (heading := f"\n{answers.name} of {answers.task}"):
            lines.append(Text(heading, style="bold"))
        width = max(len("expected"), *map(len, answers.given))
        lines.append(Text(f"  row {answers.row}: {_one_line(answers.prompt)}"))
        for label, text in {"expected": answers.expected, **answers.given}.items():
            lines.append(Text.assemble((f"    {label:{width}}  ", "dim"), _one_line(text)))
    return lines


def _one_line(text: str) -> str:
    line = text.strip().replace("\n", "⏎")
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
