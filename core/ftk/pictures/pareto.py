"""How a comparison is drawn: each variant by what it learned and what it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftk.pictures.charts import MARKERS, WIDE, framed, legend_name
from ftk.pictures.numbers import brief, short
from ftk.pictures.paint import SERIES, Paint, hinted


@dataclass(frozen=True)
class Dot:
    """One variant of a comparison: its place, the intervals around it, and the group that colours it."""

    label: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None
    group: int = 0


def pareto(
    paint: Paint, dots: Sequence[Dot], best: Sequence[int], x_label: str, y_label: str, groups: Sequence[str]
) -> Figure:
    """Every variant by what it learned and what it kept, with the front of those that none is better than in both."""
    figure = framed(WIDE, 4.6, 0.75, 0.15, 0.1, 0.85)
    axes = figure.subplots()
    axes.grid(visible=True, axis="both")
    if len(best) > 1:
        axes.plot(
            [dots[at].x for at in best], [dots[at].y for at in best], color=paint["soft"], linewidth=1,
            linestyle=(0, (4, 3)), zorder=1, label="Pareto front",
        )  # fmt: skip
    labelled: set[int] = set()
    for number, dot in enumerate(dots):
        colour = paint[f"series{dot.group % SERIES}"]
        for interval, whole in ((dot.x_interval, True), (dot.y_interval, False)):
            if interval is not None:
                ends = (interval, (dot.y, dot.y)) if whole else ((dot.x, dot.x), interval)
                axes.plot(*ends, color=colour, linewidth=1, alpha=0.5, zorder=2)
        name = legend_name(groups[dot.group]) if groups and dot.group not in labelled else "_"
        labelled.add(dot.group)
        axes.plot(
            [dot.x], [dot.y], marker=MARKERS[dot.group % SERIES], markersize=7, color=colour, linestyle="none",
            markerfacecolor=colour if number in best else paint["ground"], zorder=3, label=name,
            gid=hinted(f"{dot.label}: {brief(dot.x)}, {brief(dot.y)}"),
        )  # fmt: skip
    _label(axes, dots, best, paint)
    axes.margins(0.08, 0.12)
    axes.set(xlabel=short(x_label, 60), ylabel=short(y_label, 40))
    if len(groups) > 1 or len(best) > 1:
        figure.legend(loc="lower left", ncols=6, handlelength=1.6)
    return figure


Box = tuple[float, float, float, float]

_SIDES = ((9, 0, "left"), (-9, 0, "right"), (0, 11, "center"), (0, -11, "center"), (9, 10, "left"), (9, -10, "left"),
          (-9, 10, "right"), (-9, -10, "right"), (9, 21, "left"), (9, -21, "left"), (-9, -21, "right"))  # fmt: skip
"""Where a name may stand beside its dot, in points, the most liked first."""


def _label(axes: Axes, dots: Sequence[Dot], best: Sequence[int], paint: Paint) -> None:
    """Write each name beside its dot, on the side where it covers least of other dots and names."""
    wide, high = 560.0, 230.0  # points, about, that the dots are spread over
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    places = [
        ((x - min(xs)) / ((max(xs) - min(xs)) or 1) * wide, (y - min(ys)) / ((max(ys) - min(ys)) or 1) * high)
        for x, y in zip(xs, ys, strict=True)
    ]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for number in sorted(range(len(dots)), key=lambda at: (at not in best, -dots[at].y)):
        text, (x, y) = short(dots[number].label, 40), places[number]
        width = 4.9 * len(text)

        def box(side: tuple[int, int, str], x: float = x, y: float = y, width: float = width) -> Box:
            left = x + side[0] - {"left": 0.0, "right": width, "center": width / 2}[side[2]]
            return left, y + side[1] - 5, left + width, y + side[1] + 5

        def covered(side: tuple[int, int, str], own: int = number) -> float:
            found = box(side)
            beyond = max(0.0, found[2] - wide - 40) * 10
            return beyond + sum(_common(found, other) for at, other in enumerate(taken) if at != own)

        side = min(_SIDES, key=covered)
        taken.append(box(side))
        axes.annotate(
            text, (dots[number].x, dots[number].y), side[:2], textcoords="offset points", va="center", ha=side[2],
            fontsize=8.5, color=paint["ink" if number in best else "soft"], zorder=4,
            bbox={"facecolor": paint["ground"], "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
        )  # fmt: skip


def _common(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(0.0, wide) * max(0.0, high)
