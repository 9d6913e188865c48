"""The numbers behind the charts: curves, what is kept over time, weights by layer and kind, a Pareto front."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftk.errors import visible
from ftk.pictures.reading import StageStory, finite
from ftk.report.scores import RETAIN, Score, Scores

MOST_POINTS = 600
"""Points of a curve that are drawn; more lie closer than a line is wide."""

MOST_LAYERS = 40
"""Rows of a heat map; layers of a deeper model are taken together."""


Segment = tuple[list[int], list[float]]


def curve(stages: Sequence[StageStory], key: str) -> list[Segment]:
    """A number of the ``step`` events over all stages, their steps counted on: of each stage the steps and the values.

    Of more than 600 points in all, neighbours are averaged.
    """
    found = [
        [(start + at, v) for at, event in sorted(stage.steps.items()) if (v := finite(event.get(key))) is not None]
        for start, stage in zip(starts(stages), stages, strict=True)
    ]
    size = -(-sum(map(len, found)) // MOST_POINTS) or 1
    segments = []
    for points in found:
        groups = [points[at : at + size] for at in range(0, len(points), size)]
        segments.append(([g[-1][0] for g in groups], [math.fsum(v for _, v in g) / len(g) for g in groups]))
    return segments


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, a 20th of the curve wide; as it is where it has few points."""
    reach = len(values) // 40
    windows = [values[max(0, at - reach) : at + reach + 1] for at in range(len(values))]
    return [math.fsum(window) / len(window) for window in windows]


def starts(stages: Sequence[StageStory]) -> list[int]:
    """How many steps of the run were done before each stage."""
    found = [0]
    for stage in stages:
        found.append(found[-1] + stage.length)
    return found[: len(stages)]


def rows_of(scores: Scores) -> range:
    """After which stages the rows of the matrix were measured; 0 is the starting model."""
    first = 0 if scores.tasks[:1] == (RETAIN,) else 1
    return range(first, first + len(scores.matrix(scores.metrics[0])) if scores.metrics else first)


def headlines(scores: Scores) -> list[str]:
    """The metrics that are drawn: those of test sets, without those of probes."""
    return [metric for metric in scores.metrics if "@" not in metric]


def course(scores: Scores, metric: str, task: int) -> list[tuple[int, float]]:
    """What a task scored: after which stage, 0 for the starting model, and how much."""
    after = dict(zip(rows_of(scores), (row[task] for row in scores.matrix(metric)), strict=True))
    after.setdefault(0, scores.start(metric)[task])
    return [(stage, score) for stage, score in sorted(after.items()) if score is not None]


def kept(scores: Scores, metric: str, task: int) -> list[tuple[int, Score]]:
    """From when a task was learned, its score as a share of its best earlier one, after each stage.

    The last is :meth:`ftk.report.scores.Scores.retention`; at the moment of learning it is 1. None where a share would
    say nothing: a score is missing, or what it is a share of is not above zero.
    """
    higher = scores.higher_is_better[metric]
    better = max if higher else min
    found: list[tuple[int, Score]] = []
    earlier: list[float] = []
    for row, (after, seen) in enumerate(zip(rows_of(scores), scores.matrix(metric), strict=True)):
        score = seen[task]
        if row == scores.learned(task):
            found.append((after, 1.0 if score is not None and score > 0 else None))
        elif row > scores.learned(task):
            found.append((after, _share(score, better(earlier), higher) if earlier else None))
        earlier += [] if score is None else [score]
    return found


def _share(score: Score, best: float, higher: bool) -> Score:
    part, whole = (score, best) if higher else (best, score)
    if part is None or whole is None or best <= 0 or whole <= 0:
        return None
    return part / whole


@dataclass(frozen=True)
class Weight:
    """One weight of a stage's table.

    Attributes:
        name: in the model.
        layer: its layer's number; None outside the layers.
        kind: its name in a layer, with ``*`` for further numbers, such as those of experts.
        matrix: whether it is one.
        norm: of its drift.
        relative: the same over its starting norm.
        importances: by mitigation, the mean importance of its elements.
        shares: by mitigation, its share of what all drift costs.
    """

    name: str
    layer: int | None
    kind: str
    matrix: bool
    elements: int
    norm: float | None
    relative: float | None
    importances: Mapping[str, float | None]
    shares: Mapping[str, float | None]


def weights_of(table: Mapping[str, Any]) -> list[Weight]:
    """The weights of a ``weights.json`` in its order.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no such table.
    """
    told: Mapping[str, Mapping[str, Any]] = table.get("importances", {})
    sums = {
        method: math.fsum(cost for of in weights.values() if (cost := finite(of.get("cost"))))
        for method, weights in told.items()
    }
    found = []
    for name, drift in table["drift"].items():
        layer, kind = place_of(name)
        of = {method: weights[name] for method, weights in told.items() if name in weights}
        shares = {
            method: cost / sums[method] if (cost := finite(numbers.get("cost"))) is not None and sums[method] else None
            for method, numbers in of.items()
        }
        found.append(
            Weight(
                name, layer, kind, len(drift["shape"]) > 1, math.prod(drift["shape"]), finite(drift["norm"]),
                finite(drift["relative"]), {m: finite(numbers.get("mean")) for m, numbers in of.items()}, shares,
            )
        )  # fmt: skip
    return found


def place_of(name: str) -> tuple[int | None, str]:
    """A weight's layer, the first number in its name, and its kind.

    They are 3 and ``mlp.up_proj`` for ``model.layers.3.mlp.up_proj.weight``.
    """
    parts = name.removesuffix(".weight").split(".")
    numbers = [at for at, part in enumerate(parts) if re.fullmatch("[0-9]{1,6}", part)]
    if not numbers:
        return None, ".".join(parts)
    kind = ".".join("*" if at in numbers else part for at, part in enumerate(parts) if at > numbers[0])
    return int(parts[numbers[0]]), kind or ".".join(parts[: numbers[0]])


@dataclass(frozen=True)
class Grid:
    """A heat map: a number by row and column, None where there is nothing."""

    rows: list[str]
    columns: list[str]
    cells: list[list[float | None]]


def grid(weights: Iterable[Weight], value: str, method: str = "") -> Grid:
    """Matrices by layer and kind, those outside the layers in rows of their own below.

    Args:
        weights: of one stage.
        value: ``drift`` (relative, weights that share a cell taken together by their norms), ``importance`` (mean over
            elements) or ``share`` (summed).
        method: whose importances.
    """
    matrices = [weight for weight in weights if weight.matrix]
    inside = [weight for weight in matrices if weight.layer is not None]
    layers = sorted({weight.layer for weight in inside if weight.layer is not None})
    size = -(-len(layers) // MOST_LAYERS) or 1
    groups = [layers[at : at + size] for at in range(0, len(layers), size)]
    label = {layer: _span(group) for group in groups for layer in group}
    kinds = list(dict.fromkeys(weight.kind for weight in inside))
    cells: dict[tuple[str, str], list[Weight]] = {}
    for weight in inside:
        cells.setdefault((label[weight.layer or 0], weight.kind), []).append(weight)
    rows = [_span(group) for group in groups]
    table = [[_taken(cells.get((row, kind), []), value, method) for kind in kinds] for row in rows]
    outside = [weight for weight in matrices if weight.layer is None]
    if outside:
        table = [[*row, None] for row in table]
        table += [[*[None] * len(kinds), _taken([weight], value, method)] for weight in outside]
    return Grid([*rows, *(weight.kind for weight in outside)], [*kinds, *["outside layers"] * bool(outside)], table)


def _span(layers: Sequence[int]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"


def _taken(weights: Sequence[Weight], value: str, method: str) -> float | None:
    """What one cell shows of the weights in it."""
    match value:
        case "drift":
            known = [(w.norm, w.relative) for w in weights if w.norm is not None and w.relative]
            moved = math.fsum(norm**2 for norm, _ in known)
            began = math.fsum((norm / relative) ** 2 for norm, relative in known)
            still = any(weight.relative == 0 for weight in weights)
            return math.sqrt(moved / began) if began else 0.0 if still else None
        case "importance":
            means = [(m, w.elements) for w in weights if (m := w.importances.get(method)) is not None]
            elements = sum(count for _, count in means)
            return math.fsum(mean * count for mean, count in means) / elements if elements else None
        case _:
            shares = [share for w in weights if (share := w.shares.get(method)) is not None]
            return math.fsum(shares) if shares else None


def front(points: Sequence[tuple[float, float]], higher_x: bool, higher_y: bool) -> list[int]:
    """The points, by number, that no other is at least as good as in both and better in one; ordered by x."""
    signed = [(x if higher_x else -x, y if higher_y else -y) for x, y in points]

    def beaten(at: int) -> bool:
        x, y = signed[at]
        return any(ox >= x and oy >= y and (ox, oy) != (x, y) for ox, oy in signed)

    return sorted((at for at in range(len(points)) if not beaten(at)), key=lambda at: points[at])


def brief(value: float, unit: str = "") -> str:
    """A number of three significant digits or fewer, as it fits a cell.

    Args:
        value: the number.
        unit: ``%`` to show hundredths, ``share`` for numbers from 0 to 1, with two digits each.
    """
    if unit == "share":
        return f"{value:.2f}"
    if unit == "%":
        value *= 100
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 10_000 or size < 0.001:
        return f"{value:.0e}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def short(text: str, longest: int) -> str:
    """The text in one line, or its beginning."""
    text = visible(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
