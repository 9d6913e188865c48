"""The Fisher pass against the least that gradients cost: a plain batch, forward and backward."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fisher_pass import FisherPass, compare
from tests.bench.pairs import Goal, Measured

WHAT = (
    "time of the Fisher pass over that of a plain batch with weight gradients; SmolLM2-135M, what LoRA covers, 8 rows "
    "of 32 tokens (small: Llama of 4 layers and 192 channels, 64 rows)"
)
GOAL = Goal("≤", 1.2)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    return compare(folder, 3 if quick else 7, FisherPass.hooked, FisherPass.batched)
