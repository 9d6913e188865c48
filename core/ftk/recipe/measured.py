"""Whether evaluators have rows to measure on, after a stage and while it trains, and what can go by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftk.errors import Problem, did_you_mean
from ftk.recipe.specs import PartSpec, StageSpec
from ftk.recipe.supplied import Surroundings, from_data, mend_of

OWN_ROWS = "own-rows"
"""Provided by an evaluator that measures rows of its own, and not those of a task."""
WHILE_TRAINING = "while-training"
"""Provided by such an evaluator that also measures while a stage trains, on the same rows."""


def each_once(lists: Sequence[tuple[PartSpec, ...]]) -> list[tuple[PartSpec, ...]]:
    """The evaluators of each task in order, those of own rows in the first task alone: others would say the same."""
    seen: list[object] = []
    kept = []
    for evaluators in lists:
        new = [spec for spec in evaluators if OWN_ROWS not in spec.provides() or spec.resolved() not in seen]
        seen += [spec.resolved() for spec in new]
        kept.append(tuple(new))
    return kept


def unmeasured(evaluators: Sequence[PartSpec], capability: str, data: Mapping[str, PartSpec | None]) -> list[Problem]:
    """Evaluators need rows to measure on, each task its own."""
    asking = [spec for spec in evaluators if OWN_ROWS not in spec.provides()]
    if not asking or capability in from_data(data):
        return []
    names = ", ".join(f"`{spec.name}`" for spec in asking)
    whose = "of data.retain " if capability.startswith("retain-") else ""
    return [Problem(asking[0].path, f"{names}: there are no test rows {whose}to measure on", mend_of(capability))]


def check_watched(stage: StageSpec, around: Surroundings, validated: bool) -> tuple[list[Problem], list[str]]:
    """What keeps a stage from being measured while it trains, and which earlier tasks that leaves out.

    Args:
        stage: the stage.
        around: what lies around it.
        validated: whether its own task has validation data.
    """
    training = stage.training
    if not training.evaluate_every:
        return [], []
    problems = []
    of_itself = [spec for spec in stage.evaluators if OWN_ROWS in spec.provides()]
    if not validated and not any(WHILE_TRAINING in spec.provides() for spec in of_itself):
        reason = "measures on validation data, and there is none"
        hint = "add data.validation, or a `data.train` source that keeps validation rows back itself"
        problems.append(Problem("training.evaluate_every", reason, hint))
    if not stage.evaluators:
        hint = "add an [[evaluator]], or leave evaluate_every out"
        problems.append(Problem("training.evaluate_every", "measures with evaluators, and there is none", hint))
    names = _watching(stage.evaluators, validated)
    measured = [metric for metrics in names for metric in metrics]
    if training.best_by and all(names) and training.best_by not in measured:
        hint = did_you_mean(training.best_by, measured)
        ends = [spec.name for spec in of_itself if training.best_by in spec.metrics()]
        reason = f"no evaluator measures `{training.best_by}`"
        if ends:
            reason = f"`{ends[0]}` measures `{training.best_by}` only when a stage has ended"
            hint = f"write while_training = true in `{ends[0]}`, or choose another metric"
        problems.append(Problem("training.best_by", reason, hint))
    seen = around.validated()
    notes = [
        f"stage {stage.name}: evaluate_every leaves out task `{name}`, which has no validation data"
        for name, known in seen.items()
        if not known and not _of_own_rows_alone(around.measured.get(name, ()))
    ]
    found, told = _weighed(stage, around, names)
    return problems + found, notes + told


def _weighed(stage: StageSpec, around: Surroundings, names: Sequence[Sequence[str]]) -> tuple[list[Problem], list[str]]:
    """Whether ``retention_weight`` has something to weigh: the metric that tells the best, of an earlier task."""
    training = stage.training
    if not training.retention_weight:
        return [], []
    place = "training.retention_weight"
    seen = around.validated()
    if not seen and around.several:
        return [], [f"stage {stage.name}: retention_weight has nothing to weigh, for nothing was learned before it"]
    earlier = [metrics for name, known in seen.items() for metrics in _watching(around.measured.get(name, ()), known)]
    if not earlier:
        reason = "weighs earlier tasks, and none is there to measure on validation data"
        return [Problem(place, reason, "add data.retain with data.retain_validation, or leave it out")], []
    wanted = training.best_by or (names[0][0] if names and names[0] else "")
    if not wanted or not all(earlier) or any(wanted in metrics for metrics in earlier):
        return [], []
    both = [metric for metrics in names for metric in metrics if any(metric in others for others in earlier)]
    hint = f'write best_by = "{both[0]}", which both measure' if both else "give both a common evaluator"
    reason = f"no earlier task measures `{wanted}`, by which the stage chooses, on validation data"
    return [Problem(place, reason, f"{hint}, or leave retention_weight out")], []


def _of_own_rows_alone(evaluators: Sequence[PartSpec]) -> bool:
    """Whether there are evaluators, none of which measures the task's rows."""
    return bool(evaluators) and all(OWN_ROWS in spec.provides() for spec in evaluators)


def _watching(evaluators: Sequence[PartSpec], validated: bool) -> list[tuple[str, ...]]:
    """Of each evaluator that measures a task while a stage trains, its metrics; empty where they are not known yet."""
    return [
        spec.metrics()
        for spec in evaluators
        if (WHILE_TRAINING in spec.provides() if OWN_ROWS in spec.provides() else validated)
    ]
