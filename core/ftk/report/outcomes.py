"""What measured rows tell beside a metric's number: which rows they were, and the metric on rows drawn anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ftk.parts import Metric

FILE = "rows.safetensors"
"""In the folder of a run that has completed."""

Cell = tuple[int, str, str]
"""After which stage, of which task, by which metric."""


@dataclass(frozen=True)
class Outcome:
    """One measurement.

    Attributes:
        rows: a number of each row that was measured, by its content, ``(rows,) int64``; None: nobody knows the rows.
        units: how many things were drawn from, as a rule the rows; 0 without draws.
        draws: the metric on each draw of so many, ``(draws,) float32``, NaN where it has no value; None: it has none.
            Measurements of the same rows have the same draws, so that they can be taken in pairs.
    """

    rows: np.ndarray | None
    units: int = 0
    draws: np.ndarray | None = None


class Outcomes:
    """The outcomes of a run, by :data:`Cell`."""

    def __init__(self) -> None:
        self.cells: dict[Cell, Outcome] = {}

    def record(self, after: int, task: str, metric: Metric, draws: np.ndarray | None) -> None:
        """Take in one measurement, in place of what stood there."""
        self.cells[after, task, metric.name] = Outcome(
            metric.rows,
            metric.resampling.rows if metric.resampling else 0,
            None if draws is None else draws.astype(np.float32),
        )

    def take_over(self, other: Outcomes, after: int, tasks: Iterable[str]) -> None:
        """Take in what another has of these tasks after this stage."""
        self.cells |= {cell: found for cell, found in other.cells.items() if cell[0] == after and cell[1] in tasks}

    def arrays(self) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        """All of it as arrays by name, and a list of the cells that says which array is whose.

        ``rows.N``: the numbers of a set of rows, one for each set however often it was measured; ``draws``: a line for
        each cell that has draws.
        """
        sets: dict[bytes, int] = {}
        arrays: dict[str, np.ndarray] = {}
        cells: list[dict[str, Any]] = []
        draws: list[np.ndarray] = []
        for (after, task, metric), found in sorted(self.cells.items(), key=lambda cell: cell[0]):
            told: dict[str, Any] = {"after": after, "task": task, "metric": metric, "units": found.units}
            if found.rows is not None:
                number = sets.setdefault(found.rows.tobytes(), len(sets))
                arrays[f"rows.{number}"], told["rows"] = found.rows, number
            if found.draws is not None:
                told["draws"] = len(draws)
                draws.append(found.draws)
            cells.append(told)
        if draws:
            arrays["draws"] = np.stack(draws)
        return arrays, cells

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], cells: Iterable[Mapping[str, Any]]) -> Outcomes:
        """What :meth:`arrays` gave.

        Raises:
            KeyError, IndexError, TypeError: the two do not fit each other.
        """
        made = cls()
        for told in cells:
            rows = arrays[f"rows.{told['rows']}"] if "rows" in told else None
            draws = arrays["draws"][told["draws"]] if "draws" in told else None
            made.cells[told["after"], told["task"], told["metric"]] = Outcome(rows, told["units"], draws)
        return made

    def write(self, folder: Path) -> None:
        """Write :data:`FILE` into a run's folder."""
        from safetensors.numpy import save_file

        arrays, cells = self.arrays()
        aside = folder / f".{FILE}.partial"
        told = json.dumps({"schema": 1, "cells": cells}, ensure_ascii=False)
        save_file(arrays, aside, {"measured": told})  # one entry, for the order of several is left to chance
        aside.replace(folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> Outcomes:
        """Read :data:`FILE`.

        Raises:
            OSError: it is not there.
            ValueError: it is damaged, or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(folder / FILE, framework="numpy") as file:
                told = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls.of_arrays(arrays, json.loads(told["measured"])["cells"])
        except (SafetensorError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"it does not hold what was measured ({error})") from error
