"""What was promised beside what came: a floor for the retention, and by how much the loss of earlier tasks may rise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftk.comparing.runs import FinishedRun

WORTH_A_RATIO = 0.1
"""The share of the allowance below which a measured rise has no ratio: it is not told apart from none."""
COLUMNS = ("promise", "kept", "worst", "estimate / measured")


@dataclass(frozen=True)
class Kept:
    """What became of one promise to one earlier task in one stage.

    Attributes:
        promised: the floor, or the allowance in nats.
        came: the retention, or the rise.
        ratio: the estimated over the measured rise, before the step back; None where it says nothing.
    """

    promised: float
    came: float
    ratio: float | None = None


def floors(report: Mapping[str, Any], metric: str) -> Iterator[Kept]:
    """``budget`` on the test rows: each earlier task's score after a stage over that before it."""
    scores = report["matrix"][metric]
    first = len(scores) - len(report["stages"])  # what the starting model knows, where it is measured, has a row before
    for number, stage in enumerate(report["stages"], start=first):
        if told := stage["mitigations"].get("budget"):
            places = [report["tasks"].index(name) for name in told["start"]]
            for before, after in ((scores[number - 1][place], scores[number][place]) for place in places):
                if before:
                    yield Kept(told["retention_floor"], after / before)


def allowances(report: Mapping[str, Any]) -> Iterator[Kept]:
    """``ewc`` by ``allowed_loss``, as the mitigation measured it on the rows of its estimate."""
    for stage in report["stages"]:
        told = stage["mitigations"].get("ewc", {})
        for rise in told.get("rises", {}).values():
            allowed, measured = told["allowed_loss"], rise["measured"]
            worth = measured > WORTH_A_RATIO * allowed and "estimated" in rise
            yield Kept(allowed, rise.get("kept", measured), rise["estimated"] / measured if worth else None)


def lines(runs: Sequence[FinishedRun], metric: str) -> list[str]:
    """The table of the promises that these runs made; nothing where they made none."""
    told = []
    for name, found, slack in (
        ("retention at least", [kept for run in runs for kept in floors(run.report, metric)], -0.02),
        ("loss risen by at most", [kept for run in runs for kept in allowances(run.report)], 0.0),
    ):
        for promised in sorted({kept.promised for kept in found}):
            its = [kept for kept in found if kept.promised == promised]
            worst = (min if slack else max)(kept.came for kept in its)
            held = sum(kept.came >= promised + slack if slack else kept.came <= promised for kept in its)
            told.append(f"| {name} {promised:g} | {held} of {len(its)} | {worst:.3f} | {_ratios(its)} |")
    return [f"| {' | '.join(COLUMNS)} |", "|---|--:|--:|--:|", *told] if told else []


def _ratios(found: Iterable[Kept]) -> str:
    ratios = sorted(kept.ratio for kept in found if kept.ratio is not None)
    if not ratios:
        return "–"
    near = sum(abs(math.log(ratio)) <= math.log(2) if ratio > 0 else False for ratio in ratios)
    return f"{ratios[0]:.2f} to {ratios[-1]:.2f}; {near} of {len(ratios)} within a factor of 2"
