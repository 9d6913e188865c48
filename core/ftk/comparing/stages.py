"""The stage cache: a stage that any run has trained is found by all that it depends on, and not trained again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ftk.comparing.keys import measured_keys, stage_keys
from ftk.data.cache import Cache
from ftk.disk.bundles import link_or_copy, read_bundle
from ftk.disk.manifest import Damaged, read_manifest, verify
from ftk.errors import UserError
from ftk.recipe.checking import MERGE
from ftk.report import WEIGHTS
from ftk.report.scores import Scores
from ftk.running.exporting import model_places
from ftk.running.keeping import StageKeeper
from ftk.running.measuring import measure_tasks
from ftk.running.pipeline import Run
from ftk.running.reporting import run_report, write_card

STAGE, MEASURED = "stage", "measured.json"
"""What an entry holds: a stage's folder as the run left it, and a key for how each of its tasks was measured."""


class KeptStages(StageKeeper):
    """The stages in the cache of data (``FTK_CACHE``), for runs of one process.

    Of two processes that want the same stage one trains it, and the other waits. While a process trains a later stage
    that another has begun as well, it does not wait: each trains its own, with the same result.

    Args:
        keep_last: whether a run's last stage is kept too; a sweep would fill the disk with stages that nobody asks for.
    """

    def __init__(self, keep_last: bool = True) -> None:
        self._keep_last = keep_last
        self._keys: list[str] = []
        self._measured: dict[str, str] = {}
        self._held = ExitStack()
        self._holds = ""

    def place(self, run: Run) -> None:
        """Put the stages that are known into the run's folder, and hold the lock of the first that is not."""
        self._keys, self._measured = [], {}
        assert run.folder is not None
        if run.accelerator.num_processes > 1 or run.folder.grown:
            return
        self._keys = [f"stage-{key}" for key in stage_keys(run)]
        if not self._keys:
            text = f"stages are not shared: the model source `{run.recipe.model.use}` does not say what it reads"
            run.events("warning", text=text)
            return
        self._measured = measured_keys(run)
        names = [_name(run, number) for number in range(len(self._keys))]
        there = [run.folder.stage_path(number, name).is_dir() for number, name in enumerate(names)]
        first = there.index(False) if False in there else len(names)
        found = run.folder.finished_stage(first - 1, names[first - 1]) if 0 < first < len(names) else None
        scores = Scores(run.scores.tasks)
        if found is not None:
            scores = Scores.from_state(found[0]["scores"]).extended(scores.tasks)
        for number in range(first, len(names)):
            entry = self._find(run.encoder.cache, self._keys[number])
            if entry is None or not self._take(run, number, entry, scores):
                return

    def keep(self, run: Run, number: int) -> None:
        """Put a finished stage into the cache, unless another process is about to; then try to hold the next."""
        if not self._keys or (number == len(run.recipe.stages) and not self._keep_last):
            return
        assert run.folder is not None
        key, cache = self._keys[number], run.encoder.cache
        try:
            if self._holds == key and cache.find(key) is None:
                cache.store(key, partial(self._fill, run.folder.stage_path(number, _name(run, number))))
        except (UserError, OSError) as error:
            run.events("warning", text=f"stage {_name(run, number)} is not kept for other runs: {error}")
        self.close()
        if number + 1 < len(self._keys):
            self._hold(cache, self._keys[number + 1], wait=False)

    def close(self) -> None:
        """Let other processes train what this one was to."""
        self._held.close()
        self._holds = ""

    def _find(self, cache: Cache, key: str) -> Path | None:
        """The entry, waited for where another process makes it; None: it is to be made here, and its lock is held."""
        if (entry := _whole(cache, key)) is None:
            self._hold(cache, key, wait=True)
            if (entry := _whole(cache, key)) is not None:
                self.close()
        return entry

    def _hold(self, cache: Cache, key: str, wait: bool) -> None:
        if self._held.enter_context(cache.locked(key, wait)):
            self._holds = key

    def _take(self, run: Run, number: int, entry: Path, scores: Scores) -> bool:
        """Put one known stage into the run's folder; False where its model cannot be measured as this run asks.

        ``scores`` are those of the stages before, and take those of this one.
        """
        assert run.folder is not None
        name, spec = _name(run, number), run.recipe.stages[max(number, 1) - 1]
        measured = json.loads((entry / MEASURED).read_text(encoding="utf-8"))
        alike = [task for task, key in self._measured.items() if measured.get(task) == key]
        others = [task for task in self._measured if task not in alike]
        if others and number and MERGE not in spec.adaptation.provides():
            return False
        run.events("phase", text=f"stage {name} was trained before" if number else "the start was measured before")
        states, _ = read_bundle(entry / STAGE / "state")
        scores.take_over(Scores.from_state(states["scores"]), number, alike)
        if others:
            heads = run.load(number, last=entry / STAGE / "model")
            tasks = run.tasks(heads.processor)
            measure_tasks(run.context(number, heads, tasks), [task for task in tasks if task.name in others], scores)
        run.folder.stage_aside(number, name)
        facts = {} if number == 0 else self._place_model(run, number, entry / STAGE, scores)
        run.folder.finish_stage(number, name, {**states, "scores": scores.to_state()}, **facts)
        return True

    def _place_model(self, run: Run, number: int, stage: Path, scores: Scores) -> dict[str, Any]:
        """Put the model of a stage where the run makes its folder, with a card of this run; gives the stage's facts."""
        assert run.folder is not None
        target = run.folder.aside_path(number, _name(run, number)) / "model"
        shutil.copytree(stage / "model", target, copy_function=_link)
        if (stage / WEIGHTS).is_file():
            shutil.copy2(stage / WEIGHTS, target.parent)
        manifest = read_manifest(stage)
        earlier = [run.folder.stage_path(n, _name(run, n)) for n in range(1, number)]
        facts = {**manifest["facts"], "from_cache": True}
        report = run_report(run.recipe, "running", scores, [*(read_manifest(path)["facts"] for path in earlier), facts])
        for head, place in model_places(target, run.heads(number)).items():
            told = manifest["told"] if place == target else None
            write_card(place, report, run.recipe, head.kind, run.source.how_to_load(), told)
        return {"facts": facts, "told": manifest["told"]}

    def _fill(self, stage: Path, folder: Path) -> None:
        shutil.copytree(stage, folder / STAGE, copy_function=_link)
        (folder / MEASURED).write_text(json.dumps(self._measured), encoding="utf-8")


def _name(run: Run, number: int) -> str:
    return run.recipe.stages[number - 1].name if number else "start"


def _whole(cache: Cache, key: str) -> Path | None:
    """An entry whose files are what was written; one that is damaged is deleted."""
    entry = cache.find(key)
    if entry is None:
        return None
    try:
        verify(entry / STAGE)
        verify(entry / STAGE / "state")
        json.loads((entry / MEASURED).read_text(encoding="utf-8"))
    except (Damaged, OSError, ValueError):
        cache.drop(key)
        return None
    return entry


def _link(source: str, target: str) -> None:
    """Weights are linked; small files are copied, for people edit them."""
    link: Callable[[str, str], object] = link_or_copy if source.endswith(".safetensors") else shutil.copy2
    link(source, target)
