"""Running a recipe from the command or from Python: folder, signals, observers; what a run returns."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers.utils.logging import disable_progress_bar

from ftk import pictures
from ftk.disk.manifest import Damaged
from ftk.errors import FtkError, Interrupted, UserError
from ftk.events import EventLog, Events, RunEvent
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Registry, own_version
from ftk.processes.environment import environment
from ftk.processes.hardware import forget_peak, give_back_large_blocks
from ftk.processes.meeting import lost_process, make_accelerator
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe
from ftk.running.folder import RunFolder
from ftk.running.keeping import StageKeeper
from ftk.running.pipeline import Run

Observer = Callable[[RunEvent], object]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: where everything is: ``model/`` with the weights, ``report.json`` with the numbers.
        report: the content of ``report.json``.
    """

    folder: Path
    report: dict[str, Any]


def run(
    recipe: str | Path | Recipe,
    *,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    without: Sequence[str] = (),
    fresh: bool = False,
    registry: Registry | None = None,
    observers: Sequence[Observer] = (),
    keeper: StageKeeper | None = None,
    choosing: bool = False,
    stop: Callable[[], bool] = lambda: False,
    page: bool = True,
) -> RunResult:
    """Run a recipe, or go on with it where an earlier run of it in the same folder was stopped.

    Args:
        recipe: the path of a recipe, or one that is already loaded.
        output: the run's folder; by default ``runs/<name>``, with ``-without-<mitigation>`` for an ablation.
        overrides: ``key=value`` changes to the recipe, as after ``--set``.
        without: mitigations to leave out, by name.
        fresh: delete what the folder holds and start over.
        registry: the plugins to choose from; by default all that are installed.
        observers: called with every :class:`ftk.events.RunEvent`, beside those of plugins.
        keeper: knows stages that other runs have trained; by default every stage is trained here.
        choosing: measure everything on validation rows, and test rows not at all: the scores are to choose by.
        stop: asks the run to stop at the next step, as a signal does.
        page: write ``report.html`` at the end; ``ftk report`` writes it any time.

    Raises:
        UserError: the recipe or its data are wrong.
        Interrupted: SIGINT or SIGTERM came; what was done is saved.
        RunFailed: the run itself failed.
    """
    registry = registry or load_registry()
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides=overrides, without=without, registry=registry)
    disable_progress_bar()  # ours tells what goes on
    accelerator = make_accelerator()
    if accelerator.device.type == "cpu":
        give_back_large_blocks()
    forget_peak(accelerator.device)
    path = Path(output) if output else default_output(recipe, without)
    folder, report, damage = open_folder(path, recipe, accelerator, fresh)
    log = None
    try:
        if report is not None:
            return RunResult(folder.path, report)
        watching: list[Observer] = []
        if accelerator.is_main_process:
            folder.write_json("environment.json", {"ftk": own_version(), **environment()})
            log = EventLog(folder.path / "events.jsonl")
            watching = [log, *observers, *registry.observers()]
        events = Events(watching)
        if damage:
            events("warning", text=f"{damage}; it is made anew from the stages")
        with catch_signals() as stop_requested:
            try:
                asked = lambda: stop_requested() or stop()  # noqa: E731
                report = Run(recipe, folder, accelerator, events, asked, keeper, choosing).run()
            except Exception as error:
                lost = lost_process(error, accelerator)
                if lost and stop_requested():  # the peer heeded the signal that came here too
                    raise Interrupted("interrupted; what was finished is saved") from error
                if lost:
                    raise lost from error
                raise
        if page and accelerator.is_main_process:
            pictures.write_at_end(folder.path, events)
        return RunResult(folder.path, report)
    finally:
        if log is not None:
            log.close()
        if keeper is not None:
            keeper.close()
        folder.close()


def dry_run(recipe: Recipe) -> list[dict[str, Any]]:
    """Read data and model as a run would, and count; train nothing. Rows that were read and encoded stay in the cache.

    Each stage is set up on the starting model. What a mitigation mixes in is counted by the share that it takes.

    Returns:
        For each stage ``name``, ``rows``, ``tokens_per_epoch``, ``steps``, ``batch`` (a step in words), ``sources``,
        ``trainable_parameters`` and ``total_parameters``.
    """
    job = Run(recipe, None, make_accelerator(), Events([]), lambda: False)
    return job.plan()


def default_output(recipe: Recipe, without: Sequence[str] = ()) -> Path:
    """The folder of a run that names none: ``runs/<name>``, and for an ablation what it leaves out."""
    return Path("runs") / "-without-".join([recipe.name, *sorted(without)])


def open_folder(
    path: Path, recipe: Recipe, accelerator: Accelerator, fresh: bool
) -> tuple[RunFolder, dict[str, Any] | None, str]:
    """Open the run's folder in the main process first; its peers read, and never write or lock.

    Returns:
        the folder, the report if the run is finished, and what is wrong with a report that cannot be read.

    Raises:
        FtkError: as :class:`ftk.running.folder.RunFolder` and :meth:`ftk.running.folder.RunFolder.completed`; in
            every process, so that none waits for another.
    """
    folder, report, damage, failure = None, None, "", None
    if accelerator.is_main_process:
        try:
            folder = RunFolder(path, recipe, fresh)
            report = folder.completed(len(recipe.stages), recipe.stages[-1].name)
        except Damaged as error:
            damage = str(error)
        except FtkError as error:
            failure = error
    refused, report, damage = broadcast_object_list([str(failure or ""), report, damage])
    if refused:
        if folder is not None:
            folder.close()
        raise failure or UserError(refused)
    return folder or RunFolder(path, recipe, held=False), report, damage


@contextmanager
def catch_signals() -> Iterator[Callable[[], bool]]:
    """Within it, SIGINT and SIGTERM ask the run to stop at the next safe point; a second one stops at once.

    Yields:
        Whether a signal came. Outside the main thread signals are left alone and it always says no.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
