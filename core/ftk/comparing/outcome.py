"""What a sweep found: its points, those that no other is better than, and the best under a floor."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftk.comparing.intervals import Estimate
from ftk.comparing.plotted import Plotted, plot
from ftk.comparing.study import Point, Study


@dataclass(frozen=True)
class Result:
    """A point that is done.

    Attributes:
        point: with what was found.
        front: whether no other is better in both.
    """

    point: Point
    front: bool

    @property
    def found(self) -> Mapping[str, Any]:
        """What was told of it: ``measures``, ``costs``, ``runs``, ``higher_is_better``."""
        return self.point.found or {}

    def estimate(self, measure: str) -> Estimate | None:
        """One of the measures of a comparison."""
        told = self.found["measures"][measure]
        ends = [None if told is None or told[key] is None else tuple(told[key]) for key in ("over_rows", "over_seeds")]
        return None if told is None else Estimate(told["value"], *ends)

    def value(self, measure: str) -> float | None:
        """As :meth:`estimate`, without its intervals."""
        found = self.estimate(measure)
        return None if found is None else found.value

    @property
    def learned(self) -> float:
        """The target, turned so that more is better."""
        value = self.value("target") or 0.0
        return value if self.found["higher_is_better"] else -value

    @property
    def kept(self) -> float:
        """The retention; 1 where there was nothing to keep."""
        value = self.value("retention")
        return 1.0 if value is None else value


@dataclass(frozen=True)
class Outcome:
    """What there is to show of a sweep.

    Attributes:
        found: the points that are done.
        points: all that were begun.
        floor: the least retention, 0 to 1, of the best.
    """

    found: Sequence[Result]
    points: Sequence[Point]
    floor: float

    @property
    def best(self) -> Result | None:
        """The point that learned most of those that kept ``floor``, else the one that kept most; of none, None."""
        return max(
            self.found,
            key=lambda result: (standing(result.learned, result.kept, self.floor), result.kept, result.learned),
            default=None,
        )

    def ended(self) -> dict[str, int]:
        """How many points are not done, by what became of them."""
        return dict(Counter(point.state for point in self.points if point.state != "complete"))

    def to_json(self) -> dict[str, Any]:
        """For programs; docs/comparing.md tells the keys."""
        best = self.best
        fronts = {result.point.number for result in self.found if result.front}
        return {
            "schema": 1, "floor": self.floor, "best": None if best is None else best.point.number,
            "points": [
                {
                    "number": point.number, "values": dict(point.values), "state": point.state,
                    "front": point.number in fronts, **(point.found or {}),
                }
                for point in self.points
            ],
        }  # fmt: skip


def standing(learned: float, kept: float, floor: float) -> float:
    """One number for both aims, which orders points as the best is chosen, whatever scale ``learned`` has.

    From 0 to 1 where the floor is kept, by what was learned; below 0 where it is not, by what is missing.
    """
    return 0.5 + math.atan(learned) / math.pi if kept >= floor else kept - floor


def results(study: Study) -> list[Result]:
    """The points that are done, in their order."""
    front = set(study.front())
    return [Result(point, point.number in front) for point in study.points() if point.state == "complete"]


def points_table(name: str, done: Outcome) -> dict[str, Any]:
    """The content of ``points.json``, from which the page of a sweep is drawn; see docs/report.md."""
    higher = done.found[0].found["higher_is_better"] if done.found else True
    best = done.best
    found = [
        Plotted(
            describe(result.point.values), "best" if result is best else "points",
            result.estimate("target"), result.estimate("retention"),
        )
        for result in done.found
    ]  # fmt: skip
    return plot(f"{name}: sweep", higher, found)


def describe(values: Mapping[str, Any]) -> str:
    """A point in words: each value after the last parts of its key that tell it from the others."""
    keys = list(values)
    short = {key: next(s for n in range(1, 9) if _alone(s := ".".join(key.split(".")[-n:]), key, keys)) for key in keys}
    return ", ".join(f"{short[key]}={_shown(value)}" for key, value in values.items())


def _alone(short: str, key: str, keys: Sequence[str]) -> bool:
    return short == key or not any(other != key and f".{other}".endswith(f".{short}") for other in keys)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if type(value) is float else value if isinstance(value, str) else json.dumps(value)


def described(result: Result) -> str:
    """A point and what it learned and kept, in words."""
    target, kept = result.value("target"), result.kept
    return f"{describe(result.point.values)} (target {target:.4g}, retention {kept:.1%})"
