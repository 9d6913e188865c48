"""How a heat map is drawn: a grid of numbers, each written in its cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ftk.pictures.charts import WIDE
from ftk.pictures.numbers import Grid, brief, short
from ftk.pictures.paint import LEVELS, Paint, hinted

LETTER = 0.066
"""Inches that a letter of a name takes, about."""


def heat_map(
    paint: Paint,
    shown: Grid,
    *,
    across: str,
    down: str,
    unit: str = "",
    lower_is_better: bool = False,
    logarithmic: bool = False,
    limits: tuple[float, float] | None = None,
    outlined: Sequence[tuple[int, int]] = (),
) -> Figure:
    """A grid of numbers, each written in its cell, the larger (or the better) the stronger its colour.

    Args:
        paint: the colours.
        shown: the numbers.
        across: what the columns are.
        down: what the rows are.
        unit: as in :func:`ftk.pictures.numbers.brief`.
        lower_is_better: turn the colours round.
        logarithmic: spread the colours by the logarithm.
        limits: what the palest and the strongest colour stand for; by default the smallest and largest number.
        outlined: cells with a frame.
    """
    rows, columns = [short(name, 28) for name in shown.rows], [short(name, 22) for name in shown.columns]
    longest, highest = (max(map(len, names), default=1) for names in (rows, columns))
    crowded = highest > 6  # names of columns lean, and reach beyond the last
    left, right = 0.3 * bool(down) + 0.1 + LETTER * longest, 0.1 + 0.7 * LETTER * len(columns[-1]) * crowded
    top, bottom = 0.15 + (0.7 * LETTER * highest if crowded else 0.1), 0.3 * bool(across) + 0.05
    wide, high = len(columns) * min(0.5, (WIDE - left - right) / len(columns)), 0.27 * len(rows)
    width, height = left + wide + right, top + high + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
    axes.set_axis_off()
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    known = [value for row in shown.cells for value in row if value is not None]
    scale = _scale(known, limits, logarithmic)
    for i, row in enumerate(shown.cells):
        for j, value in enumerate(row):
            level = None if value is None else scale(value)
            if level is not None and lower_is_better:
                level = LEVELS - 1 - level
            text = "" if value is None else brief(value, unit)
            place = f"{rows[i]}, {columns[j]}: {text or 'none'}"
            axes.add_patch(
                Rectangle(
                    (j, i), 0.96, 0.94, linewidth=0, gid=hinted(place),
                    facecolor=paint["missing" if level is None else f"heat{level}"],
                )
            )  # fmt: skip
            if level is not None:
                axes.text(
                    j + 0.48, i + 0.5, text, ha="center", va="center", color=paint[f"on{level}"],
                    fontsize=8 if len(columns) <= 14 else 6.5,
                )  # fmt: skip
    for i, j in outlined:
        axes.add_patch(Rectangle((j, i), 0.96, 0.94, fill=False, edgecolor=paint["series1"], linewidth=1.6))
    soft: dict[str, Any] = {"color": paint["soft"], "fontsize": 8.5}
    for i, name in enumerate(rows):
        axes.text(-0.15, i + 0.5, name, ha="right", va="center", **soft)
    for j, name in enumerate(columns):
        if crowded:
            axes.text(j + 0.4, -0.15, name, rotation=45, rotation_mode="anchor", ha="left", va="bottom", **soft)
        else:
            axes.text(j + 0.48, -0.2, name, ha="center", va="bottom", **soft)
    axes.text(len(columns) / 2, len(rows) + 0.35, across, ha="center", va="top", **soft)
    figure.text(0.12 / width, (bottom + high / 2) / height, down, rotation=90, ha="center", va="center", **soft)
    return figure


def _scale(known: Sequence[float], limits: tuple[float, float] | None, logarithmic: bool) -> Callable[[float], int]:
    """A function that gives a number its level."""

    def place(value: float) -> float:
        return math.log(value) if logarithmic and value > 0 else value

    counted = [place(value) for value in known if value > 0 or not logarithmic]
    low, high = limits or (min(counted, default=0.0), max(counted, default=1.0))

    def level(value: float) -> int:
        if logarithmic and value <= 0:
            return 0
        share = (place(value) - low) / (high - low) if high > low else 1.0
        return min(LEVELS - 1, max(0, round(share * (LEVELS - 1))))

    return level
