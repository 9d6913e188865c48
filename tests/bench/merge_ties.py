"""TIES of two models over their base, beside mergekit; and DARE, which draws, by its statistics."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.bench.mergers import Contest, apart
from tests.bench.pairs import Goal, Measured

WHAT = "time of `ftk merge` over mergekit's, whole commands; TIES of two models of SmolLM2-135M, density 0.3, float32"
GOAL = Goal("≤", 0.3)
DENSITY = 0.3


def measure(folder: Path, quick: bool) -> Measured:
    """Run it; the results must be equal to 1e-6 but for entries of exactly the size at which a weight is trimmed."""
    contest = Contest(folder)

    def config(method: str) -> str:
        models = "".join(
            f"  - model: {contest.path(name)}\n    parameters: {{weight: 0.5, density: {DENSITY}}}\n" for name in "ab"
        )
        base = contest.path("c")
        return f"models:\n{models}merge_method: {method}\nbase_model: {base}\ndtype: float32\n"

    arguments = ("a", "b", "--base", "c", "--weights", "0.5,0.5", "--density", str(DENSITY), "--method")
    found = contest.measure(config("ties"), (*arguments, "ties"), 1 if quick else 2)
    a, b, c = (contest.weights(name) for name in "abc")
    differing = apart(contest.weights("ours"), contest.weights("theirs"))
    for name, mask in differing.items():
        sizes = [(model[name] - c[name]).abs() for model in (a, b)]
        edges = [size == _edge(size) for size in sizes]
        assert not (mask & ~(edges[0] | edges[1])).any(), f"{name}: they differ where nothing is drawn or tied"
    found.facts["entries_of_the_edge"] = sum(int(mask.sum()) for mask in differing.values())
    if not quick:
        contest.ours("ours", *arguments, "dare")
        contest.theirs("theirs", config("dare_linear"))
        for side in ("ours", "theirs"):
            found.facts[f"dare_kept_{side}"] = _kept(contest.weights(side), c)
    return found


def _edge(sizes: Tensor) -> Tensor:
    """The size of the smallest entry that is kept."""
    kept = max(1, int(DENSITY * sizes.numel()))
    return sizes.flatten().kthvalue(sizes.numel() - kept + 1).values


def _kept(merged: dict[str, Tensor], base: dict[str, Tensor]) -> float:
    """The share of entries that moved: of two models ``1 − (1 − density)²`` are expected."""
    moved = sum(int((merged[name] != base[name]).sum()) for name in base)
    return moved / sum(torch.numel(tensor) for tensor in base.values())
