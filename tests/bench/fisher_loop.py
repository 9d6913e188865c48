"""The Fisher pass against one backward pass for each row."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fisher_pass import FisherPass, compare
from tests.bench.pairs import Goal, Measured

WHAT = (
    "time of a plain loop over single rows over that of the Fisher pass; SmolLM2-135M, what LoRA covers, 8 rows of 32 "
    "tokens (small: Llama of 4 layers and 192 channels, 64 rows)"
)
GOAL = Goal("≥", 3.0)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    return compare(folder, 2 if quick else 5, FisherPass.one_by_one, FisherPass.hooked)
