"""Sweeps: a recipe run at every point that a study asks for, each by what it learned and what it kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ftk.comparing.comparison import Comparison, compare
from ftk.comparing.outcome import describe, standing
from ftk.comparing.quality import check_metric, so_far
from ftk.comparing.runs import FinishedRun, read_run
from ftk.comparing.spaces import Space, setting
from ftk.comparing.stages import KeptStages
from ftk.comparing.study import Point, Study
from ftk.errors import Interrupted, RunFailed, UserError
from ftk.events import RunEvent
from ftk.plugin.registry import Registry
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe
from ftk.running.pipeline import Run
from ftk.running.runner import run

Tell = Callable[[str], None]

PLACES = 100
"""Of a stage's way, at which a point can be held against others."""


@dataclass(frozen=True)
class Swept:
    """What is run at each point.

    Attributes:
        recipe: its path.
        settings: ``key=value`` changes that hold at every point.
        without: mitigations that are left out at every point.
        spaces: what differs from point to point.
        seeds: each point is run with these.
        choosing: whether the scores are those on validation rows.
        metric: by which all tasks are compared; None: each by its first.
    """

    recipe: Path
    settings: tuple[str, ...]
    without: tuple[str, ...]
    spaces: tuple[Space, ...]
    seeds: tuple[int, ...]
    choosing: bool = True
    metric: str | None = None

    def at(self, values: Mapping[str, Any], seed: int, registry: Registry) -> Recipe:
        """The recipe of a point with a seed."""
        chosen = [setting(space, values[space.key]) for space in self.spaces]
        settings = (*self.settings, *chosen, f"seed={seed}")
        return load_recipe(self.recipe, overrides=settings, without=self.without, registry=registry)

    def check(self, registry: Registry) -> None:
        """Read the recipe at every value of a choice and at both ends of a range, the others at their first.

        Raises:
            UserError: the recipe is wrong there, or nothing measures the metric.
        """
        for recipe in self._ends(registry):
            check_metric(recipe, self.metric, self.choosing)

    def alike(self, registry: Registry) -> int:
        """How many stages, from the first on, are the same at every point."""
        first, *others = (recipe.resolved() for recipe in self._ends(registry))
        if any({**other, "stages": first["stages"]} != first for other in others):
            return 0
        columns = zip(first["stages"], *(other["stages"] for other in others), strict=True)
        return sum(1 for _ in takewhile(lambda stages: all(stage == stages[0] for stage in stages), columns))

    def _ends(self, registry: Registry) -> Iterator[Recipe]:
        first = {space.key: space.ends[0] for space in self.spaces}
        for space in self.spaces:
            for value in space.ends:
                yield self.at({**first, space.key: value}, self.seeds[0], registry)

    def first(self, registry: Registry) -> Recipe:
        """The recipe where every space has its first value, with seed 0: it tells sweeps apart."""
        return self.at({space.key: space.ends[0] for space in self.spaces}, 0, registry)

    def identity(self, registry: Registry) -> dict[str, Any]:
        """What a study is of, beside its spaces."""
        return {
            "recipe": self.first(registry).sha256, "settings": list(self.settings), "without": list(self.without),
            "seeds": list(self.seeds), "measured_on": "validation" if self.choosing else "test",
            "metric": self.metric,
        }  # fmt: skip


class Sweep:
    """One process's part of a sweep: it takes points from the study until none is left.

    Args:
        swept: what is run.
        study: gives the points.
        folder: where the runs go, each in a folder named by its point's values and its seed.
        registry: the plugins.
        tell: takes a line for each point and each seed that is done.
        floor: the retention that the best point must have; a pruner heeds it.
        keep_models: whether runs keep their weights; else what a run measured is all that is kept of it.
    """

    def __init__(
        self, swept: Swept, study: Study, folder: Path, registry: Registry, tell: Tell, *, floor: float,
        keep_models: bool = False,
    ) -> None:  # fmt: skip
        self.swept = swept
        self.study = study
        self.folder = folder
        self.registry = registry
        self.tell = tell
        self.floor = floor
        self.keep_models = keep_models
        self._alike = swept.alike(registry)

    def run(self) -> None:
        """Run every point that is left.

        Raises:
            UserError: the recipe or its data are wrong.
            Interrupted: a signal came; the point that was at work is the next one's.
        """
        while (point := self.study.ask()) is not None:
            self.tell(f"point {point.number + 1}: {describe(point.values)}")
            try:
                self._run_point(point)
            except RunFailed as error:
                self.study.give_up(point, str(error), pruned=False)
                self.tell(f"  failed: {error!s}")
            except (Interrupted, KeyboardInterrupt) as error:
                self.study.leave(point)
                raise Interrupted("interrupted; what was finished is saved") from error
            except BaseException:
                self.study.leave(point)
                raise

    def _run_point(self, point: Point) -> None:
        runs: list[FinishedRun] = []
        watch = _Watch(self.study, point, self.swept, self.floor, self._alike)
        for watch.number, seed in enumerate(self.swept.seeds):
            path = self.folder / folder_name(point.values) / f"seed-{seed}"
            try:
                runs.append(self._run_once(point, seed, path, watch))
            except Interrupted:
                if not watch.hopeless:
                    raise
            if runs:
                found = compare(runs, metric=self.swept.metric)
                target, retention = _values(found)
                if seed != self.swept.seeds[-1] and not watch.hopeless:
                    watch.report(PLACES * (len(runs[0].recipe["stages"]) - self._alike) * len(runs), target, retention)
            if watch.hopeless:
                shutil.rmtree(path, ignore_errors=True)
                self.study.give_up(point, f"pruned at seed {seed}", pruned=True)
                self.tell("  pruned: worse than the others were at this point of their way")
                return
        (row,) = found.rows
        measures = {name: estimate and estimate.to_json() for name, estimate in row.measures.items()}
        told = {"measures": measures, "costs": dict(row.costs), "runs": [str(run.path) for run in runs]}
        self.study.tell(point, target, retention, {**told, "higher_is_better": found.higher_is_better})

    def _run_once(self, point: Point, seed: int, path: Path, watch: _Watch) -> FinishedRun:
        """Run the recipe of a point with one seed, unless that was done."""
        recipe = self.swept.at(point.values, seed, self.registry)
        with suppress(UserError):
            known = read_run(path)
            if known.report.get("recipe_sha256") == recipe.sha256:
                return known
        run(
            recipe, output=path, registry=self.registry, observers=[watch], keeper=_Shared(watch),
            choosing=self.swept.choosing, stop=lambda: watch.hopeless, page=False,
        )  # fmt: skip
        done = read_run(path)
        if not self.keep_models:
            for name in ("model", "stages", "checkpoints"):
                shutil.rmtree(path / name, ignore_errors=True)
        self.tell(f"  seed {seed}: {done.cost()['seconds']:.0f} s")
        return done


class _Watch:
    """An observer of a point's runs that tells the study how far it is, and hears whether that looks hopeless.

    A pruner holds a point against what others were at the same place of their way: :data:`PLACES` in each stage that is
    not the same at every point, and the end of each seed.

    Args:
        study: hears it.
        point: which is run.
        swept: says by what it is judged.
        floor: the retention that the best point must have.
        alike: how many stages are the same at every point.

    Attributes:
        run: which is going on; a test's scores while it trains are on other rows than those after it, and not told.
        number: of its seed, from 0.
        hopeless: whether the point is to be ended.
    """

    def __init__(self, study: Study, point: Point, swept: Swept, floor: float, alike: int) -> None:
        self.study, self.point, self.swept, self.floor, self.alike = study, point, swept, floor, alike
        self.run: Run | None = None
        self.number, self.hopeless = 0, False
        self._told = 0

    def __call__(self, event: RunEvent) -> None:
        if event.kind == "evaluated" and self.run is not None and self.swept.choosing:
            told, stages = event.data, self.run.recipe.stages
            done = PLACES * (self.number * (len(stages) - self.alike) + told["stage"] - 1 - self.alike)
            stage = stages[told["stage"] - 1].name
            found = so_far(self.run.scores, stage, told["scores"], self.swept.metric)
            if found is not None and told["stage"] > self.alike:
                self.report(done + max(1, (PLACES - 1) * told["step"] // told["steps"]), *found)

    def report(self, place: int, learned: float, kept: float) -> None:
        """Tell what was learned, more being better, and the share that was kept, at a place of the way, from 1.

        Of several evaluations at one place the first is told; a study takes no second.
        """
        if place > self._told and not self.hopeless:
            self._told = place
            self.hopeless = self.study.hopeless(self.point, place, standing(learned, kept, self.floor))


class _Shared(KeptStages):
    """The stage cache, which shows the run that uses it to the point's watch."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__(keep_last=False)
        self._watch = watch

    def place(self, run: Run) -> None:
        self._watch.run = run
        super().place(run)


def folder_name(values: Mapping[str, Any]) -> str:
    """The folder of a point: the same for the same values."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:12]


def _values(found: Comparison) -> tuple[float, float]:
    """What is maximised: the target, turned where lower is better, and the retention; 1 where nothing was to keep.

    Raises:
        RunFailed: the target has no finite value.
    """
    target, retention = (found.rows[0].measures[name] for name in ("target", "retention"))
    if target is None:
        raise RunFailed("what was learned has no finite score")
    value = target.value if found.higher_is_better else -target.value
    return value, 1.0 if retention is None else retention.value
