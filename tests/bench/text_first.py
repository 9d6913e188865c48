"""The first run over 1 GB of running text: from its start to its first step."""

from __future__ import annotations

from pathlib import Path

from tests.bench.first_step import Contest, first_runs
from tests.bench.made_up import RUNNING_TEXT, write_texts
from tests.bench.pairs import Goal, Measured

WHAT = "time to the first step of a first run over that of datasets.map(batched=True) alone; 1 GB of running text"
GOAL = Goal("≤", 1.2)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    rows = write_texts(folder / "texts.jsonl", 2**23 if quick else 2**30)
    return first_runs(Contest.over(folder / "contest", rows, RUNNING_TEXT), 1 if quick else 2)
