"""Any further run over 1,000,000 short instruction rows: from its start to its first step."""

from __future__ import annotations

from pathlib import Path

from tests.bench.first_step import Contest, later_runs
from tests.bench.made_up import INSTRUCTION, write_rows
from tests.bench.pairs import Goal, Measured

WHAT = (
    "time to the first step of a second run over that of datasets.map(batched=True) alone; "
    "1,000,000 short instruction rows"
)
GOAL = Goal("≤", 0.05)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    rows = write_rows(folder / "rows.jsonl", 20_000 if quick else 1_000_000)
    return later_runs(Contest.over(folder / "contest", rows, INSTRUCTION), 1 if quick else 3)
