"""What a run learned and what it kept, in four numbers, with each number on rows drawn anew."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ftk.comparing.runs import FinishedRun
from ftk.errors import UserError, did_you_mean
from ftk.recipe.measured import OWN_ROWS
from ftk.recipe.members import task_specs
from ftk.recipe.naming import member_of, stage_of
from ftk.recipe.specs import Recipe
from ftk.report.outcomes import Outcome
from ftk.report.scores import RETAIN, Scores

DRAWS = 1000

Values = np.ndarray
"""``(1 + DRAWS,) float64``: a number as it was measured, then on each draw of rows; NaN where it has none."""

MEASURES = ("target", "retention", "average", "forgetting")


@dataclass(frozen=True)
class Asked:
    """What is compared: the first run's tasks, each by its metric.

    Attributes:
        tasks: their names, in order.
        metrics: by task, the metric that speaks for it.
        target: the metric of what was learned last; ``average`` and ``forgetting`` are of the tasks that have it.
        learned: by task, the row of the score matrix after which it was learned.
        higher_is_better: by metric.
    """

    tasks: tuple[str, ...]
    metrics: Mapping[str, str]
    target: str
    learned: Mapping[str, int]
    higher_is_better: Mapping[str, bool]

    @property
    def last(self) -> int:
        """The last row of the score matrix."""
        return max(self.learned.values())

    def new(self) -> list[str]:
        """The tasks that are learned when something is known before; all of them, where nothing is."""
        own = [task for task in self.tasks if self.metrics.get(task) == self.target]
        return [task for task in own if self.learned[task]] or own

    def old(self) -> list[str]:
        """The tasks that are known before the last stage."""
        return [task for task in self.tasks if self.learned[task] < self.last and task in self.metrics]


def asked_of(scores: Scores, metric: str | None = None) -> Asked | None:
    """What a run can be compared by; None where nothing, or not this metric, was measured.

    Each task is told by its first metric that is of no probe, or by ``metric``.
    """
    chosen: dict[str, str] = {}
    for number, task in enumerate(scores.tasks):
        for name in scores.metrics:
            if (name == metric if metric else "@" not in name) and scores.matrix(name)[-1][number] is not None:
                chosen.setdefault(task, name)
    if not chosen:
        return None
    learned = {task: scores.learned(number) for number, task in enumerate(scores.tasks)}
    target = [chosen[task] for task in scores.tasks if task in chosen][-1]
    return Asked(scores.tasks, chosen, target, learned, dict(scores.higher_is_better))


def check_metric(recipe: Recipe, metric: str | None, choosing: bool = False) -> None:
    """Find, before anything runs, that the runs of a recipe will have nothing to be compared by.

    Of evaluators whose metrics are known only when they measure, nothing is said.

    Args:
        recipe: what will run.
        metric: by which all tasks are to be compared; None: each by its first.
        choosing: whether validation rows alone will be measured, and no probes.

    Raises:
        UserError: no evaluator measures it, or there is none.
    """
    found: list[str] = []
    for task in task_specs(recipe):
        for spec in task.evaluators:
            if not (names := spec.metrics()):
                return
            probes = () if choosing or OWN_ROWS in spec.provides() else task.data.probes
            found += [*names, *(f"{name}@{probe}" for name in names for probe in probes)]
    if not found:
        raise UserError(f"{recipe.source}: nothing is measured, and so nothing compared", "add an [[evaluator]]")
    if metric is not None and metric not in found:
        raise UserError(f"--metric {metric}: no evaluator of {recipe.source} measures it", did_you_mean(metric, found))


def so_far(
    scores: Scores, stage: str, found: Mapping[str, Mapping[str, float | None]], metric: str | None = None
) -> tuple[float, float] | None:
    """What a run has learned and kept while a stage trains; None where nothing of the stage was measured.

    Args:
        scores: what was measured after the stages before, on the same rows.
        stage: its name.
        found: each task's metrics by their names, those of the stage last; None for what is not finite.
        metric: as in :func:`asked_of`.

    Returns:
        the mean score of the stage's tasks, turned so that more is better, and the mean share that earlier tasks have
        of their best score, 1 where there are none; as :func:`quality` defines target and retention.
    """
    chosen: dict[str, str] = {}
    for task, metrics in found.items():
        names = [name for name in metrics if (name == metric if metric else "@" not in name)]
        if names and names[0] in scores.higher_is_better:
            chosen[task] = names[0]
    new = [task for task in chosen if stage_of(task) == stage]
    learned, kept = [], []
    for task, name in chosen.items():
        value, higher = found[task][name], scores.higher_is_better[name]
        if task not in new:
            column = [row[scores.tasks.index(task)] for row in scores.matrix(name)]
            best = (max if higher else min)((score for score in column if score is not None), default=np.nan)
            kept.append(0.0 if value is None else float(_kept(np.array(best), np.array(value), higher)))
        elif name == chosen[new[-1]]:
            learned.append(-np.inf if value is None else value if higher else -value)
    shares = [share for share in kept if np.isfinite(share)]
    return (float(np.mean(learned)), float(np.mean(shares)) if shares else 1.0) if learned else None


class Matrix:
    """The score matrix of a run under the names of the compared tasks, with draws.

    Args:
        run: the run.
        asked: what is compared.

    Attributes:
        joint: whether the run learned all tasks at once, in one stage that is made of them.
        fits: whether it has the very tasks.
    """

    def __init__(self, run: FinishedRun, asked: Asked) -> None:
        self.run, self.asked, self._scores = run, asked, run.scores
        own = self._scores.tasks
        members = {member_of(task): task for task in own}
        self.joint = own != asked.tasks and set(members) == set(asked.tasks)
        self._names = members if self.joint else {task: task for task in own}
        self.fits = set(self._names) == set(asked.tasks)
        self._first = 0 if own[:1] == (RETAIN,) else 1

    def outcome(self, task: str, row: int) -> Outcome | None:
        """Which rows a cell was measured on, if that was kept."""
        cells = self._scores.outcomes.cells
        return cells.get((row + self._first, self._names[task], self.asked.metrics[task]))

    def values(self, task: str, row: int) -> Values:
        """One cell."""
        found = np.full(1 + DRAWS, np.nan)
        metric = self.asked.metrics[task]
        if metric in self._scores.metrics:
            value = self._scores.matrix(metric)[row][self._scores.tasks.index(self._names[task])]
            if value is not None:
                found[0] = value
                outcome = self.outcome(task, row)
                if outcome is not None and outcome.draws is not None and len(outcome.draws) == DRAWS:
                    found[1:] = outcome.draws
        return found

    def last(self, task: str) -> Values:
        """A task's last score."""
        return self.values(task, 0 if self.joint else self.asked.last)

    def best(self, task: str) -> Values:
        """A task's best score before the last stage."""
        best = np.fmax if self.asked.higher_is_better[self.asked.metrics[task]] else np.fmin
        found: Values = best.reduce([self.values(task, row) for row in range(self.asked.last)])
        return found


def quality(matrix: Matrix, best: Mapping[str, Values] | None = None) -> dict[str, Values]:
    """The :data:`MEASURES` of a run, as docs/comparing.md defines them.

    Args:
        matrix: its scores.
        best: of a joint run: the best scores that the compared run had of each task before its last stage.
    """
    asked = matrix.asked
    higher = asked.higher_is_better
    own = [task for task in asked.tasks if asked.metrics.get(task) == asked.target]
    before = {task: (best or {}).get(task, np.full(1 + DRAWS, np.nan)) if matrix.joint else matrix.best(task)
              for task in asked.old()}  # fmt: skip
    sign = 1.0 if higher[asked.target] else -1.0
    new = [matrix.last(task) if matrix.joint else matrix.values(task, asked.learned[task]) for task in asked.new()]
    return {
        "target": mean(new),
        "retention": mean(_kept(before[t], matrix.last(t), higher[asked.metrics[t]]) for t in asked.old()),
        "average": mean(matrix.last(task) for task in own),
        "forgetting": mean(sign * (before[task] - matrix.last(task)) for task in asked.old() if task in own),
    }


def mean(values: Iterable[Values]) -> Values:
    """The mean of those that have a value as measured; where a draw of one has none, over the rest."""
    known: Sequence[Values] = [each for each in values if np.isfinite(each[0])]
    if not known:
        return np.full(1 + DRAWS, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of draws that none has
        found: Values = np.nanmean(np.stack(known), axis=0)
    return found


def _kept(best: Values, last: Values, higher: bool) -> Values:
    """The last score as a share of the best one, turned over where lower is better; see ``Scores.retention``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = last / best if higher else best / last
    defined = (best > 0) & ((last > 0) | higher)
    return np.where(defined, share, np.nan)
