"""The study of a sweep: which point comes next and what was found, kept where several processes and machines see it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.comparing.spaces import MOST_POINTS, Space
from ftk.errors import UserError

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna import Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SAMPLERS = ("auto", "grid", "random", "tpe", "nsga2")
PRUNERS = ("none", "median", "halving", "hyperband")
_PROCESS, _FOUND, _SWEEP = "process", "found", "sweep"
_OWN = [socket.gethostname(), os.getpid(), uuid.uuid4().hex]
"""This process; in a container the next one may have the same number."""


@dataclass(frozen=True)
class Point:
    """One point of the search.

    Attributes:
        number: in the study, from 0.
        values: by key, what the recipe says there.
        state: ``running``, ``complete``, ``pruned`` or ``failed``.
        found: what was told of it when it ended: JSON values.
    """

    number: int
    values: Mapping[str, Any]
    state: str = "running"
    found: Mapping[str, Any] | None = None


class Study:
    """Points asked for and told of, in a store that outlives the process.

    Two numbers of each point are maximised, what was learned and what was kept. A pruner goes by one, by whose order
    alone: a study of its own beside this one takes it, for optuna prunes no study of two.

    Args:
        storage: a file, which is made where it is not there, or the URL of a database.
        sweep: what the study is of: JSON values; a store that holds another under this name is refused.
        name: of the study in its store.
        spaces: what is searched.
        sampler: one of :data:`SAMPLERS`; ``auto`` is a grid where every space has points, else ``tpe``.
        pruner: one of :data:`PRUNERS`.
        trials: how many points are tried in all; of a grid all its points where it is None.
        seed: of the sampler.

    Raises:
        UserError: optuna is not installed; the store cannot be reached or holds another sweep; a grid of spaces
            without points, or too large a one.
    """

    def __init__(
        self,
        storage: str,
        sweep: Mapping[str, Any],
        *,
        name: str,
        spaces: Sequence[Space],
        sampler: str = "auto",
        pruner: str = "none",
        trials: int | None = None,
        seed: int = 0,
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UserError("a sweep needs optuna", 'pip install "finetune-toolkit[sweep]"') from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.spaces = tuple(spaces)
        counted = all(space.points for space in spaces)
        kind = ("grid" if counted else "tpe") if sampler == "auto" else sampler
        self.sampler = kind
        grid = self._grid() if kind == "grid" else []
        self.trials = min(len(grid), trials or len(grid)) if kind == "grid" else trials or 20
        sought = {**sweep, "spaces": [[s.key, s.kind, list(s.choices), s.low, s.high, s.step] for s in spaces]}
        try:
            store = _store(storage)
            made = {"storage": store, "load_if_exists": True}
            kinds = {"directions": ["maximize", "maximize"], "sampler": _sampler(kind, seed), **made}
            self._study: OptunaStudy = optuna.create_study(study_name=name, **kinds)
            self._pruning: OptunaStudy | None = None
            if pruner != "none":
                self._pruning = optuna.create_study(
                    study_name=f"{name} (pruning)", direction="maximize", pruner=_pruner(pruner), **made
                )
            known = self._study.user_attrs.get(_SWEEP)
            if known not in (None, json.loads(json.dumps(sought))) and not self._begun():
                # Nothing was ever run of it: its recipe was wrong, and has been mended.
                optuna.delete_study(study_name=name, storage=store)
                self._study, known = optuna.create_study(study_name=name, **kinds), None
            if known is None:
                self._study.set_user_attr(_SWEEP, json.loads(json.dumps(sought)))
            elif known != json.loads(json.dumps(sought)):
                differing = sorted(key for key in {**known, **sought} if known.get(key) != sought.get(key))
                raise UserError(
                    f"{storage}: the study `{name}` there is of another sweep (other {', '.join(differing)})",
                    "choose another --output or --study",
                )
            self._take_back()
            for values in grid:
                self._study.enqueue_trial(values, skip_if_exists=True)
        except UserError:
            raise
        except Exception as error:  # each database driver has errors of its own
            raise UserError(f"{storage}: {str(error).splitlines()[0] if str(error) else error!r}") from error
        self._asked: dict[int, Trial] = {}
        self._shadows: dict[int, Trial] = {}

    def ask(self) -> Point | None:
        """The next point; None where as many as asked for have been begun."""
        if len(self.points()) >= self.trials:
            return None
        trial = self._study.ask()
        trial.set_user_attr(_PROCESS, _OWN)
        self._asked[trial.number] = trial
        if self._pruning is not None:
            self._shadows[trial.number] = self._pruning.ask()
        return Point(trial.number, {space.key: space.draw(trial) for space in self.spaces})

    def hopeless(self, point: Point, step: int, value: float) -> bool:
        """Tell what a point is worth at ``step`` of its way, more being better; whether the pruner would end it."""
        shadow = self._shadows.get(point.number)
        if shadow is None:
            return False
        shadow.report(value, step)
        return bool(shadow.should_prune())

    def tell(self, point: Point, target: float, retention: float, found: Mapping[str, Any]) -> None:
        """A point is done: its two numbers, more being better, and what else is to be shown of it."""
        trial = self._asked.pop(point.number)
        trial.set_user_attr(_FOUND, dict(found))
        self._study.tell(trial, [target, retention])
        self._end_shadow(point, done=True)

    def give_up(self, point: Point, reason: str, *, pruned: bool) -> None:
        """A point ended before it was done: it looked hopeless, or it failed."""
        from optuna.trial import TrialState

        trial = self._asked.pop(point.number)
        trial.set_user_attr(_FOUND, {"reason": reason})
        self._study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        self._end_shadow(point, done=False)

    def leave(self, point: Point) -> None:
        """The process is asked to stop: the point is the next that anybody is given."""
        from optuna.trial import TrialState

        self._study.tell(self._asked.pop(point.number), state=TrialState.FAIL)
        self._end_shadow(point, done=False)
        self._study.enqueue_trial(self._coded(point.values))

    def points(self) -> list[Point]:
        """All points that were begun, in their order, but for those that were left for another try."""
        from optuna.trial import TrialState

        names = {
            TrialState.RUNNING: "running", TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }  # fmt: skip
        return [
            Point(trial.number, self._values(trial), names[trial.state], trial.user_attrs.get(_FOUND))
            for trial in self._begun()
        ]

    def front(self) -> list[int]:
        """The numbers of the points that no other is better than in both what was learned and what was kept."""
        return [trial.number for trial in self._study.best_trials]

    def _begun(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING and (trial.state != TrialState.FAIL or _FOUND in trial.user_attrs)
        ]

    def _end_shadow(self, point: Point, done: bool) -> None:
        """End a point for the pruner, which looks at what was told on the way and not at the value of the end."""
        from optuna.trial import TrialState

        if self._pruning is not None:
            shadow = self._shadows.pop(point.number)
            self._pruning.tell(shadow, 0.0 if done else None, None if done else TrialState.PRUNED)

    def _take_back(self) -> None:
        """Have the points tried again that processes of this machine were at when they were killed."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if _is_dead(trial.user_attrs.get(_PROCESS)):
                self._study.tell(trial.number, state=TrialState.FAIL)
                # Of a point that was killed before it knew all its values the store has what it was to be given.
                if values := {**trial.system_attrs.get("fixed_params", {}), **trial.params}:
                    self._study.enqueue_trial(values)

    def _grid(self) -> list[dict[str, Any]]:
        """Every combination, as the store writes it."""
        bare = [space.key for space in self.spaces if not space.points]
        if bare:
            raise UserError(
                f"--over {bare[0]}: a grid needs points to try", f"write how many: {bare[0]}=log(1e-3, 10, 5)"
            )
        count = 1
        for space in self.spaces:
            count *= len(space.points)
        if count > MOST_POINTS:
            raise UserError(f"the grid has {count:,} points, and {MOST_POINTS:,} are the most", "choose --sampler tpe")
        keys = [space.key for space in self.spaces]
        combined = itertools.product(*(space.points for space in self.spaces))
        return [self._coded(dict(zip(keys, values, strict=True))) for values in combined]

    def _coded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {s.key: json.dumps(values[s.key]) if s.choices else values[s.key] for s in self.spaces}

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {
            s.key: json.loads(trial.params[s.key]) if s.choices else trial.params[s.key]
            for s in self.spaces
            if s.key in trial.params
        }


def _store(storage: str) -> BaseStorage | str:
    if "://" in storage:
        return storage
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if Path(storage).is_file():
        with Path(storage).open("rb") as file:
            first = file.readline(10_000)
        if first and b'"op_code"' not in first:  # optuna would write behind whatever stands there
            raise UserError(f"{storage}: is no file of a sweep", "name one that is not there, or a database's URL")
    Path(storage).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(storage))


def _sampler(kind: str, seed: int) -> BaseSampler:
    from optuna import samplers

    if kind == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if kind == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=12)
    return samplers.RandomSampler(seed=seed)


def _pruner(kind: str) -> BasePruner:
    from optuna import pruners

    if kind == "median":
        return pruners.MedianPruner(n_startup_trials=5)
    return pruners.SuccessiveHalvingPruner() if kind == "halving" else pruners.HyperbandPruner()


def _is_dead(process: Any) -> bool:
    """Whether a process that was at a point ran on this machine and is gone."""
    if process is None or process[0] != _OWN[0]:
        return False
    if process[1] == _OWN[1]:
        return bool(process[2] != _OWN[2])
    try:
        os.kill(process[1], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is there, and another user's
    return False
