"""What EWC adds to a step of full tuning."""

from __future__ import annotations

from pathlib import Path

from tests.bench.ewc_step import in_precisions
from tests.bench.pairs import Goal, Measured

WHAT = "time of a step with EWC over without; SmolLM2-135M, all weights trained, 4 rows of 128 tokens"
GOAL = Goal("≤", 1.1)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it in the precision that a run takes here, and in float32 where that is another."""
    return in_precisions(folder, 3 if quick else 9, {"use": "full"}, {})
