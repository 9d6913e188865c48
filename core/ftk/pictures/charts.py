"""How curves and lines over the steps of a run are drawn: from numbers to a figure in a given paint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ftk.pictures.numbers import Segment, short, smoothed
from ftk.pictures.paint import SERIES, Paint

WIDE, HALF = 9.6, 4.7
"""Inches: the whole width of a page, and what two figures beside each other have."""

MOST_LINES = SERIES
"""Tasks that have a colour of their own; of more, their mean stands out."""

MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Line:
    """One line: its name, its points, and, beside them, finer ones that were measured on the way."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    fine_x: Sequence[float] = ()
    fine_y: Sequence[float | None] = ()


def framed(width: float, height: float, left: float, right: float, top: float, bottom: float) -> Figure:
    """A figure with these margins, all in inches.

    They are told and not found: to lay a figure out by the sizes of its texts takes as long as to draw it.
    """
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, hspace=0.12)
    return figure


def curves(
    paint: Paint,
    losses: Sequence[Segment],
    rates: Sequence[Segment],
    borders: Sequence[tuple[float, str]],
) -> Figure:
    """Loss, thin as it was and bold as a running mean, over the learning rate; where each stage begins is marked."""
    figure = framed(WIDE, 3.6, 0.75, 0.1, 0.25, 0.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    colour = paint["series0"]
    for steps, values in losses:
        upper.plot(steps, values, color=colour, linewidth=0.8, alpha=0.4)
        upper.plot(steps, smoothed(values), color=colour)
    for steps, values in rates:
        lower.plot(steps, values, color=paint["series1"], linewidth=1.3)
    upper.set_ylabel("loss")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("optimizer step")
    figure.align_ylabels()
    lower.set_ylim(bottom=0)
    lower.yaxis.set_major_locator(MaxNLocator(3))
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    _whole_steps(lower)
    _stages(upper, borders, paint)
    _stages(lower, [(at, "") for at, _ in borders], paint)
    return figure


def lines(
    paint: Paint,
    drawn: Sequence[Line],
    label: str,
    borders: Sequence[tuple[float, str]],
    *,
    end: float = 0.0,
    share: bool = False,
) -> Figure:
    """A line for each task; of many tasks thin ones and their mean. Numbers far apart stand on a logarithmic scale."""
    few = len(drawn) <= MOST_LINES
    legend = 0.2 * -(-len(drawn) // 2) if few else 0.2
    figure = framed(HALF, 2.9 + legend, 0.72, 0.1, 0.25, 0.62 + legend)
    axes = figure.subplots()
    for number, line in enumerate(drawn):
        colour = paint[f"series{number % SERIES}"] if few else paint["soft"]
        y = [math.nan if value is None else value for value in line.y]
        if line.fine_x:
            fine = [math.nan if value is None else value for value in line.fine_y]
            axes.plot(line.fine_x, fine, color=colour, linewidth=0.9, alpha=0.6)
        axes.plot(
            line.x, y, color=colour, marker=MARKERS[number % SERIES] if few and len(y) <= 30 else "", markersize=5,
            linewidth=1.6 if few else 0.7, alpha=1 if few else 0.5, label=legend_name(line.name) if few else "_",
            linestyle="none" if line.fine_x else "-",
        )  # fmt: skip
    if not few:
        places = sorted({x for line in drawn for x in line.x})
        seen = [[y for line in drawn for at, y in zip(line.x, line.y, strict=True) if at == x] for x in places]
        means = [_mean(values) for values in seen]
        axes.plot(places, means, color=paint["series0"], marker="o", markersize=4, label=f"mean of {len(drawn)} tasks")
    axes.set_ylabel(short(label, 32))
    axes.set_xlabel("optimizer step")
    _whole_steps(axes)
    known = [y for line in drawn for y in (*line.y, *line.fine_y) if y is not None]
    if known and not share and min(known) > 0 and max(known) > 30 * min(known):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", length=0)
    if end:
        axes.set_xlim(-0.03 * end, 1.03 * end)
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.0 if low < 0.5 else low), max(high, 1.02))
    _stages(axes, borders, paint)
    figure.legend(loc="lower left", ncols=2, handlelength=1.4, columnspacing=1.2)
    return figure


def legend_name(name: str) -> str:
    """A name as legends show it; the chart library hides those that begin with an underscore."""
    return f" {short(name, 28)}" if name.startswith("_") else short(name, 28)


def _stages(axes: Axes, borders: Sequence[tuple[float, str]], paint: Paint) -> None:
    """Mark where each stage begins, and name it above where there is room; no mark at the start of the first."""
    low, high = axes.get_xlim()
    free = -math.inf
    for at, name in borders:
        if at:
            crowded = len(borders) > MOST_LINES
            axes.axvline(at, color=paint["line" if crowded else "soft"], linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
        place = (at - low) / (high - low) * axes.bbox.width / axes.figure.dpi  # inches
        if name and place >= free:
            free = place + 0.06 * len(short(name, 24)) + 0.15
            axes.annotate(
                short(name, 24), (at, 1), (4, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                fontsize=8, color=paint["soft"], va="bottom", annotation_clip=False,
            )  # fmt: skip


def _whole_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(x=0.02)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan
