"""How a heat map is drawn: a grid of numbers, each written in its cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ftk.pictures.charts import WIDE
from ftk.pictures.numbers import Grid, brief, short
from ftk.pictures.paint import LEVELS, Paint, hinted


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
        unit: ``%`` to show hundredths.
        lower_is_better: turn the colours round.
        logarithmic: spread the colours by the logarithm.
        limits: what the palest and the strongest colour stand for; by default the smallest and largest number.
        outlined: cells with a frame.
    """
    rows, columns = len(shown.rows), len(shown.columns)
    longest = max(map(len, shown.rows), default=1)
    width = min(WIDE, max(2.6, 0.75 + 0.065 * min(longest, 28) + 0.5 * columns))
    height = min(9.0, 0.9 + 0.062 * min(22, max(map(len, shown.columns), default=1)) + 0.26 * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    known = [value for row in shown.cells for value in row if value is not None]
    scale = _scale(known, limits, logarithmic)
    for i, row in enumerate(shown.cells):
        for j, value in enumerate(row):
            level = None if value is None else scale(value)
            if level is not None and lower_is_better:
                level = LEVELS - 1 - level
            text = "" if value is None else brief(value, unit)
            place = f"{shown.rows[i]}, {shown.columns[j]}: {text or 'none'}"
            axes.add_patch(
                Rectangle(
                    (j, i), 0.96, 0.94, linewidth=0, gid=hinted(place),
                    facecolor=paint["missing" if level is None else f"heat{level}"],
                )
            )  # fmt: skip
            if level is not None:
                axes.text(
                    j + 0.48, i + 0.5, text, ha="center", va="center", color=paint[f"on{level}"],
                    fontsize=8 if columns <= 14 else 6.5,
                )  # fmt: skip
    for i, j in outlined:
        axes.add_patch(Rectangle((j, i), 0.96, 0.94, fill=False, edgecolor=paint["series1"], linewidth=1.6))
    axes.set(xlim=(0, columns), ylim=(rows, 0), xlabel=across, ylabel=down)
    axes.set_xticks([j + 0.48 for j in range(columns)], [short(name, 22) for name in shown.columns])
    axes.set_yticks([i + 0.5 for i in range(rows)], [short(name, 28) for name in shown.rows])
    crowded = max(map(len, shown.columns), default=0) > 6
    axes.tick_params(
        axis="x", rotation=45 if crowded else 0, length=0, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    if crowded:
        for tick in axes.get_xticklabels():
            tick.set(ha="left", rotation_mode="anchor")
    axes.xaxis.set_label_position("bottom")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
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
