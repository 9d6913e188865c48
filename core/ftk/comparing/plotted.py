"""What an ablation or a sweep leaves to be drawn: each variant by what it learned and what it kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ftk.comparing.intervals import Estimate


@dataclass(frozen=True)
class Plotted:
    """One point.

    Attributes:
        label: its name.
        group: those of one group look alike.
        target: what it learned.
        retention: what it kept.
        run: the folder of a run of it, relative to the file; empty: there is none.
    """

    label: str
    group: str
    target: Estimate | None
    retention: Estimate | None
    run: str = ""


def plot(name: str, higher_is_better: bool, points: Iterable[Plotted]) -> dict[str, Any]:
    """The content of ``points.json``, from which a page is drawn; docs/report.md tells the keys.

    Args:
        name: of the plot.
        higher_is_better: of the target.
        points: in their order.
    """
    return {
        "schema": 1, "name": name, "x": {"label": "target", "higher_is_better": higher_is_better},
        "y": {"label": "retention", "higher_is_better": True},
        "points": [
            {
                "label": point.label, "group": point.group,
                **{axis: found and found.value for axis, found in _axes(point)},
                **{f"{axis}_interval": _ends(found) for axis, found in _axes(point)},
                **({"run": point.run} if point.run else {}),
            }
            for point in points
        ],
    }  # fmt: skip


def _axes(point: Plotted) -> tuple[tuple[str, Estimate | None], ...]:
    return ("x", point.target), ("y", point.retention)


def _ends(found: Estimate | None) -> list[float] | None:
    return None if found is None or found.interval is None else list(found.interval)
