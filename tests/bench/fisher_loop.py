"""The Fisher pass against one backward pass for each row."""

from __future__ import annotations

from pathlib import Path

from tests.bench.fisher_pass import BATCH, fisher_pass
from tests.bench.pairs import Goal, Measured, alternate, divided

WHAT = "time of a plain loop over single rows over that of ftk's Fisher pass; SmolLM2-135M, LoRA coverage, 8 rows of 32"
GOAL = Goal("≥", 3.0)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it, after a check that both give the same squares."""
    pairs = 2 if quick else 7
    work = fisher_pass(folder)
    work.check()
    loop, ours = alternate(work.one_by_one, work.hooked, pairs, work.ctx.device)
    facts = {"ftk_rows_per_second": BATCH * pairs / sum(ours), "loop_rows_per_second": BATCH * pairs / sum(loop)}
    return Measured(divided(loop, ours), work.ctx.device, facts)
