"""The weighted average of two models, beside mergekit."""

from __future__ import annotations

from pathlib import Path

from tests.bench.mergers import Contest, apart
from tests.bench.pairs import Goal, Measured

WHAT = "time of `ftk merge` over mergekit's, whole commands; the average of two models of SmolLM2-135M, float32"
GOAL = Goal("≤", 0.5)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it; the results must be equal to 1e-6."""
    contest = Contest(folder)
    models = "".join(
        f"  - model: {contest.path(name)}\n    parameters: {{weight: {weight}}}\n"
        for name, weight in (("a", 0.7), ("b", 0.3))
    )
    config = f"models:\n{models}merge_method: linear\ndtype: float32\n"
    found = contest.measure(config, ("a", "b", "--weights", "0.7,0.3"), 1 if quick else 3)
    assert not apart(contest.weights("ours"), contest.weights("theirs"))
    return found
