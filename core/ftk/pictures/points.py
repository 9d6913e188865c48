"""A comparison's points: what each variant of an ablation or a sweep learned and kept, from ``points.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.errors import UserError
from ftk.files import read_json
from ftk.pictures.reading import POINTS, finite


@dataclass(frozen=True)
class Axis:
    """What is measured along one axis."""

    label: str
    higher_is_better: bool


@dataclass(frozen=True)
class Point:
    """One variant.

    Attributes:
        label: its name.
        x: along the first axis; None where it was not measured.
        y: along the second.
        x_interval: of confidence.
        y_interval: of confidence.
        group: variants of one group share a colour.
        run: the folder of its run, relative to the comparison's.
    """

    label: str
    x: float | None
    y: float | None
    x_interval: tuple[float, float] | None
    y_interval: tuple[float, float] | None
    group: str
    run: str


@dataclass(frozen=True)
class Comparison:
    """A table of variants that were measured alike."""

    name: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]

    def drawn(self) -> list[Point]:
        """The variants that have both numbers."""
        return [point for point in self.points if point.x is not None and point.y is not None]


def read_comparison(folder: Path) -> Comparison:
    """Read the ``points.json`` of a folder.

    Raises:
        UserError: it cannot be read, or is no such table.
    """
    path = folder / POINTS
    table = read_json(path)
    try:
        axes = [Axis(str(table[key]["label"]), bool(table[key]["higher_is_better"])) for key in ("x", "y")]
        points = tuple(_point(entry) for entry in table["points"])
        return Comparison(str(table["name"]), axes[0], axes[1], points)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: is not a table of points ({type(error).__name__}: {error})", "docs/report.md shows its form"
        ) from error


def _point(entry: Mapping[str, Any]) -> Point:
    return Point(
        str(entry["label"]), finite(entry["x"]), finite(entry["y"]), _interval(entry.get("x_interval")),
        _interval(entry.get("y_interval")), str(entry.get("group") or ""), str(entry.get("run") or ""),
    )  # fmt: skip


def _interval(ends: Any) -> tuple[float, float] | None:
    if ends is None:
        return None
    low, high = map(finite, ends)
    return None if low is None or high is None else (low, high)
