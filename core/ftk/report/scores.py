"""The score matrix of a run, what was learned and what was lost, and the numbers that sum it up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ftk.recipe.naming import stage_of
from ftk.report.outcomes import Outcomes

if TYPE_CHECKING:
    from ftk.parts import Metric, Note, State

REPORT_SCHEMA = 2
"""The number of ``report.json``'s form; docs/metrics.md tells what each has."""

RETAIN = "retain"
"""The name of the task that the starting model already knows; it is always the first."""

Found = TypeVar("Found")

Score = float | None
"""One cell: None where the task lacks the metric, or it was not measured, or it is not a finite number."""


class Scores:
    """Every measurement of a run: after each body of knowledge, each task, each metric.

    Definitions, with their sources, stand in ``docs/metrics.md``. ``R`` below is :meth:`matrix`: row ``i``
    was measured when the ``i``-th body of knowledge had been learned, column ``j`` is task ``j``. What the
    starting model knows is itself a body of knowledge where the first task is :data:`RETAIN`: row 0 is then
    the starting model.

    Args:
        tasks: the names of all tasks of the run, in the order in which they are learned. Those that one stage teaches
            together have its name before a slash, and are one body of knowledge.

    Attributes:
        outcomes: which rows were measured, and each metric on rows drawn anew.

    Raises:
        ValueError: two tasks have one name.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        if len(set(tasks)) != len(tasks):
            raise ValueError(f"two tasks have one name: {', '.join(tasks)}")
        self.tasks = tuple(tasks)
        stages = [stage_of(name) for name in tasks]
        bodies = list(dict.fromkeys(stages))
        self._learned = [bodies.index(stage) for stage in stages]
        self.higher_is_better: dict[str, bool] = {}
        self._cells: dict[str, dict[tuple[int, str], Score]] = {}
        self._details: dict[str, dict[tuple[int, str], dict[str, Any]]] = {}
        self.outcomes = Outcomes()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, in the order in which they were first recorded."""
        return tuple(self.higher_is_better)

    def record(self, after: int, task: str, metrics: Iterable[Metric], notes: Iterable[Note] = ()) -> None:
        """Take in what was measured of ``task``, in place of what stood there.

        Args:
            after: the number of the stage after which it was measured, from 1; 0 is the starting model.
            task: the task's name.
            metrics: what its evaluators measured; a value that is not finite is kept as None.
            notes: what they tell beside numbers.

        Raises:
            ValueError: the task or the stage is not of this run, or a metric was recorded before as better
                in the other direction.
        """
        if task not in self.tasks:
            raise ValueError(f"no task {task!r} in this run; it has {', '.join(self.tasks)}")
        if not 0 <= after <= max(self._learned, default=-1) + self._first_row:
            raise ValueError(f"no stage {after} in a run of the tasks {', '.join(self.tasks)}")
        for metric in metrics:
            higher = self.higher_is_better.setdefault(metric.name, metric.higher_is_better)
            if higher != metric.higher_is_better:
                raise ValueError(f"metric {metric.name!r} of {task!r} is better in the other direction elsewhere")
            value = float(metric.value)
            self._cells.setdefault(metric.name, {})[after, task] = value if math.isfinite(value) else None
            draws = metric.draws()
            self.outcomes.record(after, task, metric, draws)
            interval = metric.interval(draws)
            told = {**metric.detail, **({"interval": list(interval)} if interval else {})}
            if told:
                self._details.setdefault(metric.name, {})[after, task] = told
        for note in notes:
            self._details.setdefault(note.name, {})[after, task] = dict(note.detail)

    def learned(self, task: int) -> int:
        """The row of the matrix that was measured when a task, by its number, had been learned."""
        return self._learned[task]

    def start(self, metric: str) -> list[Score]:
        """The starting model's score of each task."""
        return self._measured_after(0, metric)

    def matrix(self, metric: str) -> list[list[Score]]:
        """``R``: a row for each body of knowledge learned so far, a column for each task of the run."""
        learned = max((after for cells in self._cells.values() for after, _ in cells), default=-1)
        return [self._measured_after(after, metric) for after in range(self._first_row, learned + 1)]

    def details(self, name: str) -> list[dict[str, Any]]:
        """What is told beside a metric's numbers, or by a note: of each measurement ``after``, ``task``, the rest."""
        found = self._details.get(name, {})
        order = sorted(found, key=lambda cell: (cell[0], self.tasks.index(cell[1])))
        return [{"after": after, "task": task, **found[after, task]} for after, task in order]

    def best_earlier(self, metric: str) -> list[Score]:
        """Each task's best score in the rows before the last one; None for what was learned last."""
        matrix = self.matrix(metric)
        best = max if self.higher_is_better[metric] else min
        columns = [[row[task] for row in matrix[:-1]] for task in range(len(self.tasks))]
        earlier = [[score for score in column if score is not None] for column in columns]
        last = len(matrix) - 1
        return [best(found) if found and self._learned[task] < last else None for task, found in enumerate(earlier)]

    def retention(self, metric: str) -> list[Score]:
        """Each task's last score as a share of its best earlier one: 1.0 is all of it.

        Where lower is better the fraction is turned over. None for the task that was learned last, and
        where the fraction would say nothing: either of the two is missing, or the divisor or the best is
        not above zero.
        """
        higher = self.higher_is_better[metric]
        kept: list[Score] = []
        for best, last in zip(self.best_earlier(metric), self._last(metric), strict=True):
            if best is None or last is None or best <= 0 or (not higher and last <= 0):
                kept.append(None)
            else:
                kept.append(last / best if higher else best / last)
        return kept

    def summary(self, metric: str) -> dict[str, Score]:
        """What the matrix says in seven numbers; each is a mean over the tasks that have it, None if none has.

        Returns:
            ``average``
                of the last row, over the tasks learned so far.
            ``average_incremental``
                of each stage's row, over the tasks learned until it, and then over stages (Rebuffi et al. 2017).
            ``learning_accuracy``
                ``R[j,j]`` over the tasks that a stage taught (Riemer et al. 2019).
            ``backward_transfer``
                ``R[T,j] − R[j,j]`` over all but the last task (Lopez-Paz and Ranzato 2017, eq. 3).
            ``forward_transfer``
                ``R[j−1,j] − start[j]`` over the tasks before which something was learned (eq. 4 there, with
                the starting model in place of a random one).
            ``forgetting``
                ``max(R[i,j], i < T) − R[T,j]`` over all but the last task (Chaudhry et al. 2018).
            ``retention``
                of :meth:`retention`.

            Differences have their sign turned where lower is better: transfer above 0 is always a gain, and
            forgetting above 0 always a loss.
        """
        matrix, start, last = self.matrix(metric), self.start(metric), self._last(metric)
        rows = self._learned
        known = [task for task, row in enumerate(rows) if row < len(matrix) - 1]
        gain = 1.0 if self.higher_is_better[metric] else -1.0
        best = self.best_earlier(metric)
        first_taught = 0 if self._first_row else 1
        taught = [(j, row) for j, row in enumerate(rows) if first_taught <= row < len(matrix)]
        return {
            "average": self._average(matrix, len(matrix) - 1),
            "average_incremental": _mean(self._average(matrix, i) for i in range(first_taught, len(matrix))),
            "learning_accuracy": _mean(matrix[row][j] for j, row in taught),
            "backward_transfer": _mean(_difference(last[j], matrix[rows[j]][j], gain) for j in known),
            "forward_transfer": _mean(
                _difference(matrix[row - 1][j], start[j], gain) for j, row in taught if row > first_taught
            ),
            "forgetting": _mean(_difference(best[j], last[j], gain) for j in known),
            "retention": _mean(self.retention(metric)),
        }

    def to_json(self) -> dict[str, Any]:
        """The part of ``report.json`` that holds the scores; :meth:`from_json` reads it back."""
        return {
            "tasks": list(self.tasks),
            "matrix": {metric: self.matrix(metric) for metric in self.metrics},
            "higher_is_better": dict(self.higher_is_better),
            "start": {metric: self.start(metric) for metric in self.metrics},
            "summary": {metric: self.summary(metric) for metric in self.metrics},
            "details": {name: self.details(name) for name in self._details},
        }

    @classmethod
    def from_json(cls, report: Mapping[str, Any]) -> Scores:
        """The scores that a report, or :meth:`to_json`, holds; the summary is computed anew."""
        scores = cls(report["tasks"])
        for metric, higher in report["higher_is_better"].items():
            scores.higher_is_better[metric] = higher
            rows = dict(enumerate(report["matrix"][metric], start=scores._first_row))
            if scores._first_row:
                rows[0] = report["start"][metric]
            scores._cells[metric] = {
                (after, task): value
                for after, row in rows.items()
                for task, value in zip(scores.tasks, row, strict=True)
            }
        for metric, details in report.get("details", {}).items():
            for told in map(dict, details):
                scores._details.setdefault(metric, {})[told.pop("after"), told.pop("task")] = told
        return scores

    def to_state(self) -> State:
        """All of it, as tensors and JSON values, for :meth:`from_state`."""
        import torch

        arrays, cells = self.outcomes.arrays()
        tensors = {f"outcomes.{name}": torch.from_numpy(array) for name, array in arrays.items()}
        return {**self.to_json(), "outcomes": cells, **tensors}

    @classmethod
    def from_state(cls, state: State) -> Scores:
        """What :meth:`to_state` gave."""
        scores, start = cls.from_json(state), "outcomes."
        arrays = {key.removeprefix(start): value.numpy() for key, value in state.items() if key.startswith(start)}
        scores.outcomes = Outcomes.of_arrays(arrays, state.get("outcomes", []))
        return scores

    def extended(self, tasks: Sequence[str]) -> Scores:
        """The same in a run of more tasks, of which these are the first; what is new is not measured yet."""
        scores = Scores(tasks)
        scores.__dict__.update({key: value for key, value in self.__dict__.items() if key not in ("tasks", "_learned")})
        return scores

    def take_over(self, other: Scores, after: int, tasks: Iterable[str]) -> None:
        """Take in what another run measured of these tasks, which are of both, after this stage."""
        names = set(tasks)
        for metric, higher in other.higher_is_better.items():
            self.higher_is_better.setdefault(metric, higher)
        _take_over(self._cells, other._cells, after, names)
        _take_over(self._details, other._details, after, names)
        self.outcomes.take_over(other.outcomes, after, names)

    @property
    def _first_row(self) -> int:
        """After which stage the first row of the matrix was measured."""
        return 0 if self.tasks[:1] == (RETAIN,) else 1

    def _measured_after(self, after: int, metric: str) -> list[Score]:
        cells = self._cells[metric]
        return [cells.get((after, task)) for task in self.tasks]

    def _average(self, matrix: Sequence[Sequence[Score]], row: int) -> Score:
        """The mean of a row over the tasks learned until it."""
        return _mean(matrix[row][j] for j, learned in enumerate(self._learned) if learned <= row) if matrix else None

    def _last(self, metric: str) -> list[Score]:
        matrix = self.matrix(metric)
        return matrix[-1] if matrix else [None] * len(self.tasks)


def _take_over(
    kept: dict[str, dict[tuple[int, str], Found]],
    found: Mapping[str, Mapping[tuple[int, str], Found]],
    after: int,
    tasks: set[str],
) -> None:
    for name, cells in found.items():
        kept.setdefault(name, {}).update({cell: cells[cell] for cell in cells if cell[0] == after and cell[1] in tasks})


def _difference(value: Score, baseline: Score, sign: float) -> Score:
    return None if value is None or baseline is None else sign * (value - baseline)


def _mean(values: Iterable[Score]) -> Score:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
