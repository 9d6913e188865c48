"""Which charts a run or a comparison has, each with its title, its explanation and the table behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from ftk.pictures import charts, numbers
from ftk.pictures.charts import Line
from ftk.pictures.heat_map import heat_map
from ftk.pictures.numbers import brief
from ftk.pictures.pareto import Dot, pareto
from ftk.pictures.points import Comparison
from ftk.pictures.reading import StageStory, Story, finite
from ftk.report.rows import number, percent
from ftk.report.scores import Scores

MOST_STAGES_DRAWN = 6
"""Stages whose weights and mitigations are drawn: the last ones."""

TABLE_STEPS = 24
"""Rows of the table under a curve."""


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, and whether its cells are numbers."""

    heading: str
    numeric: bool = True


@dataclass(frozen=True)
class Chart:
    """One chart with its table.

    Attributes:
        key: names its file; letters, digits and dashes.
        section: the part of the page that it stands in.
        title: what it shows.
        note: how to read it.
        draw: makes the figure in a given paint.
        columns: of the table.
        rows: of the table, as text.
    """

    key: str
    section: str
    title: str
    note: str
    draw: partial[Figure]
    columns: list[Column]
    rows: list[list[str]]


def charts_of(story: Story) -> Iterator[Chart]:
    """The charts of a run, in the order of the page; those that it has numbers for."""
    yield from _scores(story)
    yield from _training(story)
    for at, stage in list(enumerate(story.stages, start=1))[-MOST_STAGES_DRAWN:]:
        yield from _weights(at, stage)
        yield from _courses(at, stage)


def _borders(story: Story) -> list[tuple[float, str]]:
    return [(at, stage.name) for at, stage in zip(numbers.starts(story.stages), story.stages, strict=True)]


def _training(story: Story) -> Iterator[Chart]:
    losses, rates = (numbers.curve(story.stages, key) for key in ("loss", "learning_rate"))
    rate_at = {step: rate for segment in rates for step, rate in zip(*segment, strict=True)}
    table = [
        [f"{step:,}", f"{loss:.4f}", f"{mean:.4f}", _or_dash(rate_at.get(step))]
        for steps, values in losses
        for step, loss, mean in zip(steps, values, numbers.smoothed(values), strict=True)
    ]
    if len(table) < 2:
        return
    every = -(-len(table) // TABLE_STEPS)
    yield Chart(
        "loss", "training", "Loss and learning rate",
        "The mean loss of each logged step, thin, and its running mean. A dotted line is where a stage begins.",
        partial(charts.curves, losses=losses, rates=rates, borders=_borders(story)),
        [Column("step"), Column("loss"), Column("running mean"), Column("learning rate")],
        [row for at, row in enumerate(table) if at % every == 0 or at == len(table) - 1],
    )  # fmt: skip


def _scores(story: Story) -> Iterator[Chart]:
    if story.scores is None:
        return
    scores, names = story.scores, ["start", *(stage.name for stage in story.stages)]
    ends = [0, *(s + stage.length for s, stage in zip(numbers.starts(story.stages), story.stages, strict=True))]
    for place, metric in enumerate(numbers.headlines(scores)):
        tasks = [t for t in range(len(scores.tasks)) if numbers.course(scores, metric, t)]
        better = "more is better" if scores.higher_is_better[metric] else "less is better"
        shares = {t: numbers.kept(scores, metric, t) for t in tasks}
        kept = {t: points for t, points in shares.items() if len([v for _, v in points if v is not None]) > 1}
        drawn = []
        for t in tasks:
            points, fine = numbers.course(scores, metric, t), _fine(story, scores.tasks[t], metric)
            drawn.append(
                Line(scores.tasks[t], [ends[a] for a, _ in points], [v for _, v in points], *zip(*fine, strict=True))
                if fine else Line(scores.tasks[t], [ends[a] for a, _ in points], [v for _, v in points])
            )  # fmt: skip
        thin = " Thin lines are validation data, measured on the way." if any(line.fine_x for line in drawn) else ""
        table = [
            [scores.tasks[t], *(number(dict(numbers.course(scores, metric, t)).get(a)) for a in range(len(names)))]
            for t in tasks
        ]
        columns = [Column("task", False), Column("start"), *(Column(f"after {name}") for name in names[1:])]
        yield Chart(
            f"course-{place}", "scores", f"Scores over the run: {metric}",
            f"Test scores of each task before and after each stage; {better}.{thin}",
            partial(charts.lines, drawn=drawn, label=metric, borders=_borders(story), end=ends[-1]), columns, table,
        )  # fmt: skip
        if kept:
            rows = [
                [scores.tasks[t], *(percent(dict(points).get(after)) for after in range(1, len(names)))]
                for t, points in shares.items()
            ]
            shared = [
                Line(scores.tasks[t], [ends[a] for a, _ in points], [v for _, v in points])
                for t, points in kept.items()
            ]
            yield Chart(
                f"kept-{place}", "scores", f"What was kept: {metric}",
                "Each task's score as a share of its best earlier one, from the stage that taught it on.",
                partial(charts.lines, drawn=shared, label="kept", borders=_borders(story), end=ends[-1], share=True),
                [Column("task", False), *(Column(f"after {name}") for name in names[1:])], rows,
            )  # fmt: skip
        yield _matrix(place, metric, scores, names)


def _fine(story: Story, task: str, metric: str) -> list[tuple[float, float]]:
    found = []
    for start, stage in zip(numbers.starts(story.stages), story.stages, strict=True):
        for step, entry in sorted(stage.evaluations.items()):
            told = entry["scores"].get(task)
            value = finite(told.get(metric)) if isinstance(told, Mapping) else None
            if value is not None:
                found.append((float(start + step), value))
    return found


def _matrix(place: int, metric: str, scores: Scores, names: Sequence[str]) -> Chart:
    after = list(numbers.rows_of(scores))
    cells, labels = scores.matrix(metric), ["start" if a == 0 else f"after {names[a]}" for a in after]
    if after[:1] != [0] and any(value is not None for value in scores.start(metric)):
        cells, labels = [scores.start(metric), *cells], ["start", *labels]
    shift = len(labels) - len(after)
    taught = [scores.learned(t) + shift for t in range(len(scores.tasks))]
    outlined = [(row, t) for t, row in enumerate(taught) if 0 < row < len(labels)]
    known = [value for row in cells for value in row if value is not None]
    share = all(0 <= value <= 1 for value in known)
    higher = scores.higher_is_better[metric]
    grid = numbers.Grid(labels, list(scores.tasks), cells)
    return Chart(
        f"matrix-{place}", "scores", f"Score matrix: {metric}",
        "A row is a model, a column a task; "
        f"{'more' if higher else 'less'} is better, its colour stronger. Framed: just taught.",
        partial(
            heat_map, shown=grid, across="task", down="", lower_is_better=not higher, outlined=outlined,
            limits=(0.0, 1.0) if share and higher else None, unit="share" if share else "",
            logarithmic=not share and min(known, default=0) > 0,
        ),
        [Column("model", False), *(Column(task) for task in scores.tasks)],
        [[label, *map(number, row)] for label, row in zip(labels, cells, strict=True)],
    )  # fmt: skip


def _weights(at: int, stage: StageStory) -> Iterator[Chart]:
    if stage.weights is None:
        return
    weights = numbers.weights_of(stage.weights)
    methods = [method for method, told in stage.weights.get("importances", {}).items() if told]
    columns = [Column("weight", False), Column("moved by"), Column("of its norm")]
    for method in methods:
        columns += [Column(f"importance ({method})"), Column(f"share of the cost ({method})")]
    rows = []
    for weight in weights:
        cells = [weight.name, _or_dash(weight.norm), _or_dash(weight.relative, "%")]
        for method in methods:
            cells += [_or_dash(weight.importances.get(method)), _or_dash(weight.shares.get(method), "%")]
        rows.append(cells)
    key = f"stage-{at}"
    across, down, section = "kind of matrix", "layer", f"weights of {stage.name}"
    moved = numbers.grid(weights, "drift")
    if not moved.rows:
        return
    yield Chart(
        f"{key}-drift", section, "How far weights moved",
        "The norm of each matrix's drift, in percent of its norm before the stage.",
        partial(heat_map, shown=moved, across=across, down=down, unit="%"), columns, rows,
    )  # fmt: skip
    for place, method in enumerate(methods):
        yield Chart(
            f"{key}-importance-{place}", section, f"What earlier tasks depend on: {method}",
            "The mean importance of each matrix's elements; colours by the logarithm.",
            partial(
                heat_map, shown=numbers.grid(weights, "importance", method), across=across, down=down,
                logarithmic=True,
            ),
            columns, rows,
        )  # fmt: skip
        yield Chart(
            f"{key}-competing-{place}", section, f"Where old and new compete: {method}",
            "Each matrix's share, in percent, of what the drift costs the earlier tasks: ½ Σ importance · drift².",
            partial(
                heat_map, shown=numbers.grid(weights, "share", method), across=across, down=down, unit="%"
            ),
            columns, rows,
        )  # fmt: skip


def _courses(at: int, stage: StageStory) -> Iterator[Chart]:
    """What a mitigation tells of its way: lists of entries with a ``step`` in what it reports, a chart for each key."""
    told = stage.facts.get("mitigations", {}) if stage.facts else {}
    for place, (method, facts) in enumerate(told.items()):
        for course, entries in facts.items():
            for nth, (key, drawn) in enumerate(_course(entries).items()):
                yield Chart(
                    f"stage-{at}-way-{place}-{_plain(course)}-{nth}", f"mitigations of {stage.name}",
                    f"{method}: {key}", "What the method reports of its way through the stage.",
                    partial(charts.lines, drawn=drawn, label=key, borders=[]),
                    [Column("step"), *(Column(line.name) for line in drawn)],
                    [
                        [f"{step:,.0f}", *(_or_dash(line.y[row]) for line in drawn)]
                        for row, step in enumerate(drawn[0].x)
                    ],
                )  # fmt: skip


def _course(entries: Any) -> dict[str, list[Line]]:
    """The lines by key of the entries: one of a number, one for each entry of a table of numbers."""
    if not isinstance(entries, list) or len(entries) < 2:
        return {}
    if not all(isinstance(entry, Mapping) and finite(entry.get("step")) is not None for entry in entries):
        return {}
    steps = [float(entry["step"]) for entry in entries]
    found: dict[str, list[Line]] = {}
    for key in dict.fromkeys(key for entry in entries for key in entry if key != "step"):
        tables = [entry[key] if isinstance(entry.get(key), Mapping) else {key: entry.get(key)} for entry in entries]
        names = dict.fromkeys(name for table in tables for name in table)
        drawn = [Line(name, steps, [finite(table.get(name)) for table in tables]) for name in names]
        drawn = [line for line in drawn if any(value is not None for value in line.y)]
        if drawn:
            found[key] = drawn
    return found


def charts_of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """The Pareto plot of an ablation or a sweep."""
    points = comparison.drawn()
    if not points:
        return
    x, y = comparison.x, comparison.y
    groups = list(dict.fromkeys(point.group for point in points))
    dots = [Dot(p.label, p.x or 0.0, p.y or 0.0, p.x_interval, p.y_interval, groups.index(p.group)) for p in points]
    best = numbers.front([(dot.x, dot.y) for dot in dots], x.higher_is_better, y.higher_is_better)
    labels = [axis.label if axis.higher_is_better else f"{axis.label} (less is better)" for axis in (x, y)]
    on_front = {id(points[at]) for at in best}
    yield Chart(
        "pareto", "comparison", "What was learned against what was kept",
        "A filled point is on the Pareto front: no other variant is better in one and as good in the other."
        + (" Thin lines are confidence intervals." if any(p.x_interval or p.y_interval for p in points) else ""),
        partial(pareto, dots=dots, best=best, x_label=labels[0], y_label=labels[1], groups=groups),
        [Column("variant", False), Column(x.label), Column(y.label), Column("on the front", False)],
        [
            [p.label, _with(p.x, p.x_interval), _with(p.y, p.y_interval), "yes" if id(p) in on_front else ""]
            for p in comparison.points
        ],
    )  # fmt: skip


def _with(value: float | None, interval: tuple[float, float] | None) -> str:
    return number(value) + (f" ({number(interval[0])} to {number(interval[1])})" if interval else "")


def _or_dash(value: float | None, unit: str = "") -> str:
    return "–" if value is None else f"{brief(value, unit)}{unit and ' %'}"


def _plain(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)[:40]
