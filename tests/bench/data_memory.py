"""What a million rows cost in memory over ten thousand."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.bench.first_step import Contest
from tests.bench.made_up import INSTRUCTION, write_rows
from tests.bench.pairs import Goal, Measured

WHAT = "megabytes that are resident at the first step beyond those with 10,000 rows; 1,000,000 short instruction rows"
GOAL = Goal("≤", 300)
FEW, MANY = 10_000, 1_000_000


def measure(folder: Path, quick: bool) -> Measured:
    """Run it: a first run and a second, each against its like with few rows."""
    found = {}
    for count in (FEW, 20_000 if quick else MANY):
        folder_of = folder / str(count)
        folder_of.mkdir()
        contest = Contest.over(folder_of, write_rows(folder / f"{count}.jsonl", count), INSTRUCTION)
        found[count] = {"first": contest.first(), "second": contest.later()}
    few, many = found.values()
    more = {
        f"{run}_{kind}_megabytes": (many[run][f"{kind}_bytes"] - few[run][f"{kind}_bytes"]) / 1e6
        for run in ("first", "second")
        for kind in ("resident", "anonymous")
    }
    ratios = [more["first_resident_megabytes"], more["second_resident_megabytes"]]
    return Measured(ratios, torch.device("cpu"), {**more, "with_few_bytes": few["second"]["resident_bytes"]})
