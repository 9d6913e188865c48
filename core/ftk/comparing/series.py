"""Runs one after the other: those that have finished are not run again, and one that fails does not stop the others."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.comparing.stages import KeptStages
from ftk.errors import FtkError, Interrupted, UserError
from ftk.events import RunEvent
from ftk.plugin.registry import Registry, one_line
from ftk.recipe.specs import Recipe
from ftk.running.folder import InUse
from ftk.running.runner import run

PAUSE = 2.0
"""Seconds between two looks at runs that other processes are at."""


@dataclass(frozen=True)
class Planned:
    """One run to do.

    Attributes:
        name: of what it is a run of.
        recipe: what is run, with its seed.
        folder: where.
    """

    name: str
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Done:
    """What became of a planned run.

    Attributes:
        planned: the run.
        report: its report; None where it failed.
        error: why it failed.
    """

    planned: Planned
    report: dict[str, Any] | None
    error: str = ""


class Watcher:
    """Is told how a series goes on; this one says nothing."""

    def began(self, number: int, planned: Planned) -> None:
        """Run ``number``, from 1, begins."""

    def __call__(self, event: RunEvent) -> None:
        """Something happened in it."""

    def ended(self, number: int, done: Done, known: bool) -> None:
        """It has ended; ``known``: it had finished before."""


def run_series(planned: Sequence[Planned], registry: Registry, watcher: Watcher, fresh: bool = False) -> list[Done]:
    """Run all that has not finished, sharing stages; in the order in which they are planned.

    Several processes may run one series: each takes a run that no other is at, and at the end waits for theirs.

    Args:
        planned: the runs.
        registry: the plugins.
        watcher: is told.
        fresh: start over those that have begun.

    Raises:
        UserError: the first run says that the input is wrong: so would the others.
        Interrupted: a signal came; what was done is saved.
    """
    done: dict[int, Done] = {}
    while waiting := [number for number in range(len(planned)) if number not in done]:
        before = len(done)
        for number in waiting:
            try:
                done[number] = _run(number, planned[number], registry, watcher, fresh)
            except InUse:
                continue
        if len(done) == before:
            time.sleep(PAUSE)
    return [done[number] for number in range(len(planned))]


def _run(number: int, planned: Planned, registry: Registry, watcher: Watcher, fresh: bool) -> Done:
    began = False

    def observe(event: RunEvent) -> None:
        nonlocal began
        if event.kind == "run_started":
            began = True
            watcher.began(number + 1, planned)
        watcher(event)

    try:
        result = run(
            planned.recipe, output=planned.folder, fresh=fresh, registry=registry, observers=[observe],
            keeper=KeptStages(keep_last=False), page=False,
        )  # fmt: skip
        done = Done(planned, result.report)
    except (Interrupted, InUse):
        raise
    except UserError as error:
        if number == 0:
            raise
        done = Done(planned, None, str(error))
    except FtkError as error:
        done = Done(planned, None, str(error))
    except Exception as error:
        done = Done(planned, None, one_line(error))
    watcher.ended(number + 1, done, known=not began and done.report is not None)
    gc.collect()  # the next run's peak memory is its own
    return done
