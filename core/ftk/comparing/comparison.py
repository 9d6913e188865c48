"""Runs beside each other: seeds of one recipe together, each group against the first, with intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ftk.comparing.intervals import Estimate, over_rows, over_seeds
from ftk.comparing.quality import MEASURES, Asked, Matrix, Values, asked_of, mean, quality
from ftk.comparing.runs import FinishedRun
from ftk.errors import UserError, did_you_mean

COSTS = ("seconds", "tokens", "flops", "memory_bytes", "watt_hours")

WATTS = {"CPU": 65.0, "Apple": 30.0}
"""What a processor is taken to draw under load, by the first word of its description: a desktop's, a laptop's."""
WATTS_OF_A_GPU = 400.0
"""What any other device is taken to draw: a data centre's GPU."""


@dataclass(frozen=True)
class Row:
    """Runs of one recipe that differ in their seeds alone.

    Attributes:
        label: their name in tables.
        runs: these, by seed.
        joint: whether they learned all tasks at once.
        measures: target, retention, average and forgetting, each with its interval; None where there is none.
        differences: of these to the first row's; None in the first row.
        costs: means over the runs; ``memory_bytes`` the most of all.
        watts: by which ``watt_hours`` was computed.
    """

    label: str
    runs: tuple[FinishedRun, ...]
    joint: bool
    measures: Mapping[str, Estimate | None]
    differences: Mapping[str, Estimate | None]
    costs: Mapping[str, float]
    watts: float

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]


@dataclass(frozen=True)
class Comparison:
    """A table of runs.

    Attributes:
        metric: of ``target``, ``average`` and ``forgetting``.
        higher_is_better: of this metric.
        rows: the groups of runs; the first is what the others are compared with.
    """

    metric: str
    higher_is_better: bool
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs; docs/comparing.md tells the keys."""
        return {
            "schema": 1, "metric": self.metric, "higher_is_better": self.higher_is_better,
            "rows": [
                {
                    "label": row.label, "runs": [str(run.path) for run in row.runs], "seeds": row.seeds,
                    "joint": row.joint,
                    **{name: _told(row.measures[name], row.differences[name]) for name in MEASURES},
                    **row.costs, "watts": row.watts,
                }
                for row in self.rows
            ],
        }  # fmt: skip


def _told(measure: Estimate | None, difference: Estimate | None) -> dict[str, Any] | None:
    if measure is None:
        return None
    return {**measure.to_json(), "difference": difference.to_json() if difference else None}


def compare(
    runs: Sequence[FinishedRun],
    *,
    metric: str | None = None,
    watts: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> Comparison:
    """Group runs by recipe, and hold each group against the first.

    Args:
        runs: these.
        metric: compares all tasks; by default each task's own first metric does.
        watts: what a device draws; by default what is usual for its kind.
        labels: names of groups in the table, by the ``recipe_key`` of their runs; by default they have their folders'.

    Raises:
        UserError: two runs are of the same recipe and seed, or were measured on different tasks or rows; nobody
            measured the metric.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.recipe_key, []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.seed)
        for one, other in pairwise(group):
            if one.seed == other.seed:
                raise UserError(
                    f"{one.path} and {other.path} are the same recipe with the same seed", "name one of them"
                )
    first = runs[0]
    asked = asked_of(first.scores, metric)
    if asked is None:
        near = did_you_mean(metric, first.scores.metrics) if metric else "give the recipe an [[evaluator]]"
        raise UserError(f"{first.path}: {f'no `{metric}`' if metric else 'nothing'} was measured", near)
    matrices = {key: [Matrix(run, asked) for run in group] for key, group in groups.items()}
    _refuse_others(matrices, asked)
    named = dict(zip(groups, _labels(list(groups.values())), strict=True)) | dict(labels or {})
    rows: list[Row] = []
    best: dict[str, Values] = {}
    reference: dict[int, dict[str, Values]] = {}
    for key, found in matrices.items():
        if not rows and not found[0].joint:
            best = {task: mean([matrix.best(task) for matrix in found]) for task in asked.old()}
        values = {matrix.run.seed: quality(matrix, best) for matrix in found}
        reference = reference or values
        rows.append(
            Row(
                named[key], tuple(matrix.run for matrix in found), found[0].joint,
                {name: _estimate({seed: value[name] for seed, value in values.items()}) for name in MEASURES},
                {name: _difference(values, reference, name) if rows else None for name in MEASURES},
                *_costs(groups[key], watts),
            )
        )  # fmt: skip
    return Comparison(asked.target, asked.higher_is_better[asked.target], tuple(rows))


def _estimate(values: Mapping[int, Values]) -> Estimate | None:
    """The mean over seeds, where every seed has a value."""
    by_seed = [float(value[0]) for value in values.values()]
    if not np.isfinite(by_seed).all():
        return None
    together = np.mean(np.stack(list(values.values())), axis=0)
    return Estimate(float(np.mean(by_seed)), over_rows(together[1:]), over_seeds(by_seed))


def _difference(
    values: Mapping[int, Mapping[str, Values]], reference: Mapping[int, Mapping[str, Values]], name: str
) -> Estimate | None:
    """Of the means; over seeds where both have the same, seed by seed."""
    one, other = (
        _estimate({s: v[name] for s, v in values.items()}),
        _estimate({s: v[name] for s, v in reference.items()}),
    )
    if one is None or other is None:
        return None
    drawn = np.mean([value[name] for value in values.values()], axis=0)
    drawn = drawn - np.mean([value[name] for value in reference.values()], axis=0)
    pairs = [float(values[seed][name][0] - reference[seed][name][0]) for seed in values if seed in reference]
    paired = values.keys() == reference.keys()
    return Estimate(one.value - other.value, over_rows(drawn[1:]), over_seeds(pairs) if paired else None)


def _costs(runs: Sequence[FinishedRun], watts: float | None) -> tuple[dict[str, float], float]:
    """Costs of a run, and the watts that a device is taken to draw."""
    usual = next((number for word, number in WATTS.items() if runs[0].device.startswith(word)), WATTS_OF_A_GPU)
    drawn = usual if watts is None else watts
    each = [run.cost() for run in runs]
    costs = {name: float(np.mean([cost[name] for cost in each])) for name in ("seconds", "tokens", "flops")}
    costs["memory_bytes"] = max(cost["memory_bytes"] for cost in each)
    return {**costs, "watt_hours": costs["seconds"] * drawn / 3600}, drawn


def _refuse_others(matrices: Mapping[str, Sequence[Matrix]], asked: Asked) -> None:
    """Refuse runs that were not measured on the tasks and the rows of the first."""
    first, *others = [matrix for group in matrices.values() for matrix in group]
    for matrix in others:
        who = f"{first.run.path} and {matrix.run.path}"
        if not matrix.fits:
            raise UserError(
                f"{who} were measured on different tasks: {', '.join(asked.tasks)}; and "
                f"{', '.join(matrix.run.scores.tasks)}",
                "compare runs that learn the same tasks in the same order",
            )
        for task, metric in asked.metrics.items():
            one = first.outcome(task, asked.last)
            other = matrix.outcome(task, 0 if matrix.joint else asked.last)
            if other is None:
                raise UserError(f"{matrix.run.path}: `{task}` was not measured by `{metric}`, as {first.run.path} was")
            if one is None or one.rows is None or other.rows is None or np.array_equal(one.rows, other.rows):
                continue
            told = _which(one.rows, other.rows, str(first.run.path), str(matrix.run.path))
            raise UserError(
                f"{who} were measured on different rows of `{task}` ({metric}): {told}",
                "compare runs with the same test rows",
            )


def _which(one: np.ndarray, other: np.ndarray, name: str, its: str) -> str:
    """In words, which rows of two measurements differ."""
    if np.array_equal(np.sort(one), np.sort(other)):
        at = int(np.argmax(one != other)) + 1
        return f"they are the same in another order, from row {at} on"
    told = [
        f"{_numbers(np.flatnonzero(~np.isin(these, those)) + 1)} of {whose} {{verb}} not in {where}"
        for these, those, whose, where in ((one, other, name, its), (other, one, its, name))
        if not np.isin(these, those).all()
    ]
    if not told:
        return f"{len(one)} rows and {len(other)}, some of them several times"
    return "; ".join(text.replace("{verb}", "is" if text.startswith("row ") else "are") for text in told)


def _numbers(rows: np.ndarray) -> str:
    if len(rows) == 1:
        return f"row {rows[0]}"
    shown = ", ".join(str(row) for row in rows[:5])
    return f"rows {shown}" + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def _labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """The names of groups: of one run its folder, of several what their folders share, without what all have."""
    parents = [{parent for run in group for parent in run.path.parents} for group in groups]
    paths = []
    for number, group in enumerate(groups):
        names = [str(run.path) for run in group]
        path = os.path.commonpath(names) if len(names) > 1 else names[0]
        if len(names) > 1 and any(Path(path) in others for at, others in enumerate(parents) if at != number):
            alike = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))))
            path = names[0][:alike].rstrip("-_./")
        paths.append(path)
    if len(paths) == 1:
        return [Path(paths[0]).name or paths[0]]
    common = os.path.commonpath([Path(path).parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]
