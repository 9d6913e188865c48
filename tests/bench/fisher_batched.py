"""The Fisher pass against the least that any gradient costs: a plain batch, forward and backward."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fisher_pass import BATCH, fisher_pass
from tests.bench.pairs import Goal, Measured, alternate, divided

WHAT = "time of ftk's Fisher pass over a plain batch with weight gradients; SmolLM2-135M, LoRA coverage, 8 rows of 32"
GOAL = Goal("≤", 2.0)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    pairs = 3 if quick else 11
    work = fisher_pass(folder)
    ours, plain = alternate(work.hooked, work.batched, pairs, work.ctx.device)
    facts = {"ftk_rows_per_second": BATCH * pairs / sum(ours), "plain_rows_per_second": BATCH * pairs / sum(plain)}
    return Measured(divided(ours, plain), work.ctx.device, facts)
