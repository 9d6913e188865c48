"""The arc between two models, beside mergekit."""

from __future__ import annotations

from pathlib import Path

from tests.bench.mergers import Contest, apart
from tests.bench.pairs import Goal, Measured

WHAT = "time of `ftk merge` over mergekit's, whole commands; SLERP of two models of SmolLM2-135M, float32"
GOAL = Goal("≤", 0.5)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it; the results must be equal to 1e-6."""
    contest = Contest(folder)
    config = (
        f"models:\n  - model: {contest.path('b')}\nmerge_method: slerp\nbase_model: {contest.path('a')}\n"
        "parameters: {t: 0.3}\ndtype: float32\n"
    )
    found = contest.measure(config, ("a", "b", "--method", "slerp", "--weights", "0.7,0.3"), 1 if quick else 3)
    assert not apart(contest.weights("ours"), contest.weights("theirs"))
    return found
