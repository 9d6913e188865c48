"""What EWC adds to a step under LoRA, with the Fisher information in factors."""

from __future__ import annotations

from pathlib import Path

from tests.bench.ewc_step import in_precisions
from tests.bench.pairs import Goal, Measured
from tests.bench.stages import LORA

WHAT = "as ewc_step, with the Fisher information in factors of rank 1"
GOAL = Goal("≤", 1.01)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it in the precision that a run takes here, and in float32 where that is another."""
    return in_precisions(folder, 3 if quick else 9, LORA, {"fisher": "factored"})
