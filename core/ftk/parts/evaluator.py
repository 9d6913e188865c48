"""Measurements of one task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ftk.parts.part import Part, Row

if TYPE_CHECKING:
    from datasets import Dataset

    from ftk.parts.context import Context
    from ftk.parts.examples import Task

RESAMPLES = 1000
"""How often the rows are drawn anew for an interval (Efron and Tibshirani 1993, chapter 13)."""

COVERED = 95.0
"""The percentage of draws that an interval holds."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """A metric as a function of the rows that it is measured on, for its interval.

    Attributes:
        rows: how many rows there are.
        value: the metric on rows by their numbers, ``(rows,) int64``, any of them several times or not at all.
    """

    rows: int
    value: Callable[[np.ndarray], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number of one task.

    Attributes:
        name: of the metric.
        value: the number.
        higher_is_better: whether it is.
        detail: what the report keeps beside the number: JSON values by name, as a confusion matrix.
        resampling: gives the number its interval; None: it has none.
        rows: a number of each row that was measured, by its content, ``(rows,) int64``; filled in by the run.
    """

    name: str
    value: float
    higher_is_better: bool
    detail: Mapping[str, Any] = field(default_factory=dict)
    resampling: Resampling | None = field(default=None, compare=False)
    rows: np.ndarray | None = field(default=None, compare=False, repr=False)

    def draws(self) -> np.ndarray | None:
        """The metric on test rows drawn anew with replacement, ``(RESAMPLES,) float64``; None without resampling.

        The same rows are drawn each time and by each metric of as many rows, so that two can be taken in pairs.
        """
        if self.resampling is None:
            return None
        random, rows = np.random.Generator(np.random.PCG64(0)), self.resampling.rows
        return np.array([self.resampling.value(random.integers(rows, size=rows)) for _ in range(RESAMPLES)])

    def interval(self, draws: np.ndarray | None = None) -> tuple[float, float] | None:
        """Where 95% of :meth:`draws` lie: the percentile bootstrap.

        None where the metric has no resampling, or is not finite on half of the draws.
        """
        values = self.draws() if draws is None else draws
        if values is None:
            return None
        values = values[np.isfinite(values)]
        if len(values) < RESAMPLES / 2:
            return None
        low, high = np.percentile(values, [50 - COVERED / 2, 50 + COVERED / 2]).tolist()
        return low, high


@dataclass(frozen=True, slots=True)
class Note:
    """What the report tells of one task where a number would say too little.

    Attributes:
        name: under which it stands in the ``details`` of the report.
        detail: JSON values by name.
    """

    name: str
    detail: Mapping[str, Any]


class Evaluator(Part):
    """A measurement of one task, or of rows of its own."""

    def take(self, sets: Mapping[str, Dataset]) -> None:
        """Take the rows of the data sets that the options name (`Options.data_sets`), before anything is measured.

        All but ``data``: its rows come as ``task.test``.

        Raises:
            UserError: they are not what is needed.
        """

    def texts(self, row: Row) -> Iterable[str]:
        """The plain texts of a row of ``data`` in the options, to be compared with training rows; by default none."""
        return ()

    @abstractmethod
    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``model`` (in ``eval`` mode, under ``no_grad``) on ``task.test``; [] where it has no numbers."""

    def notes(self, model: nn.Module, task: Task, ctx: Context) -> list[Note]:
        """What the report tells beside numbers, as texts that ``model`` writes about ``task.test``.

        Called after :meth:`measure` of all evaluators, with the same model, task and context; never for measurements
        on validation rows, which leave no report.
        """
        return []
