"""Curves of a run in a line of text each, for the end of its output in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.text import Text

from ftk.pictures.numbers import curve
from ftk.pictures.reading import StageStory, finite
from ftk.report.rows import number

BARS = "▁▂▃▄▅▆▇█"

LONGEST = 32
"""Columns of a curve."""

SHORTEST = 8
"""Where there is less room, there are no curves."""

MOST = 12
"""Lines; of more the first are shown."""


def spark(values: Sequence[float], width: int) -> str:
    """The values as bars from the lowest to the highest, averaged into ``width`` columns where there are more."""
    count = min(width, len(values))
    edges = [round(at * len(values) / count) for at in range(count + 1)] if count else []
    means = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = (min(means), max(means)) if means else (0.0, 0.0)
    spread = (high - low) or 1.0
    return "".join(BARS[min(7, int((value - low) / spread * 8))] for value in means)


def spark_lines(stages: Sequence[StageStory], width: int) -> list[Text]:
    """The loss of each stage, and each validation score over its stage, as lines that fit ``width`` columns."""
    found = [(label, values) for label, values in (*_losses(stages), *_validation(stages)) if len(values) > 1][:MOST]
    room = width - 24
    label_width = min(max((len(label) for label, _ in found), default=0), max(10, room - LONGEST))
    bars = min(LONGEST, room - label_width)
    if bars < SHORTEST:
        return []
    lines = []
    for label, values in found:
        name = label if len(label) <= label_width else f"{label[: label_width - 1]}…"
        line = Text(f"{name:{label_width}} {number(values[0]):>9} ")
        line.append(spark(values, bars), style="cyan")
        lines.append(line.append(f" {number(values[-1])}"))
    return lines


def _losses(stages: Sequence[StageStory]) -> Iterator[tuple[str, list[float]]]:
    for stage, (_, values) in zip(stages, curve(stages, "loss"), strict=True):
        yield f"{stage.name} loss", values


def _validation(stages: Sequence[StageStory]) -> Iterator[tuple[str, list[float]]]:
    """The first metric of each task in each stage's evaluations."""
    for stage in stages:
        entries = [entry["scores"] for _, entry in sorted(stage.evaluations.items())]
        for task, scores in entries[-1].items() if entries else ():
            metric = next(iter(scores), "")
            seen = [finite(entry.get(task, {}).get(metric)) for entry in entries]
            yield f"{task} {metric} in {stage.name}", [value for value in seen if value is not None]
