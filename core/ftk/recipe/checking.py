"""Holds the parts of a stage against each other: what one needs, another must provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import pairwise

from ftk.errors import Problem, did_you_mean
from ftk.plugin.registry import Registry
from ftk.recipe.dividing import WHOLE_STEP, check_divided
from ftk.recipe.specs import PartSpec, StageSpec
from ftk.recipe.tested import TESTED

EARLIER = "earlier-data"
SOURCE_GRADIENTS = "source-gradients"
"""What the core gives to whoever needs it: the gradient of each source's rows apart."""
ROW_GRADIENTS = "row-gradients"
"""What the core gives where the objectives of all earlier tasks take each row by itself."""
MERGE = "merge"
"""Provided by an adaptation that leaves a plain model which computes what was trained."""
FROM_DATA = {
    "validation-data": ("validation", "train"),
    "retain-validation-data": ("retain_validation", "retain"),
    "test-data": ("test", "train"),
    "retain-test-data": ("retain_test", "retain"),
}
"""Capabilities that a key of ``[data]`` provides, or else the source behind another with its own split."""
MOST_SHARED = 0.99
"""The most of a training mix that mitigations may fill. An epoch holds ``1 / (1 - share)`` rows for each of the
stage's own, so that near 1 it has no end; a hundred are more than any method asks for."""

PACKAGES = {
    "adamw_8bit": ("bitsandbytes", "pip install bitsandbytes"),
    "flash_attention_2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": ("flash_attn_interface", "build it from `hopper/` of github.com/Dao-AILab/flash-attention"),
}
"""Choices in ``[training]`` that need a package which ftk does not: its module, and how to install it."""


@dataclass(frozen=True)
class Surroundings:
    """What lies around a stage.

    Attributes:
        model: the starting model's source; None where the recipe is wrong about it.
        has_earlier_stage: whether a stage comes before.
        top_data: the data sets at the recipe's top by key; None where the recipe is wrong about one.
        data: the data sets that hold in this stage, the same way.
        several: whether the recipe has more than one stage.
        earlier: the data sets of each stage before, by its name.
        taught: the objectives of all earlier tasks.
    """

    model: PartSpec | None
    has_earlier_stage: bool
    top_data: Mapping[str, PartSpec | None]
    data: Mapping[str, PartSpec | None]
    several: bool
    earlier: Mapping[str, Mapping[str, PartSpec | None]] = field(default_factory=dict)
    taught: Sequence[PartSpec] = ()


def check_stage(
    stage: StageSpec, around: Surroundings, registry: Registry
) -> tuple[StageSpec, list[Problem], list[str]]:
    """The stage without mitigations that cannot act in it, its problems, and notes on what was left out."""
    stage, notes = _leave_idle_out(stage, around)
    problems = _check_shares(stage) + _not_installed(stage) + check_divided(stage, registry)
    problems += _unmeasured(stage.evaluators, "test-data", {**around.top_data, **around.data})
    if around.model is None:
        return stage, problems, notes
    chosen = (around.model, stage.objective, stage.adaptation, stage.data.train)
    offered = frozenset({SOURCE_GRADIENTS}).union(*(spec.provides() for spec in chosen))
    if around.has_earlier_stage or "retain" in around.top_data:
        offered |= {EARLIER}
    if not any(WHOLE_STEP in spec.provides() for spec in around.taught):
        offered |= {ROW_GRADIENTS}
    offered |= _from_data({**around.top_data, **around.data}) | {TESTED}
    for spec in (*chosen, *stage.data.train.all_transforms(), *stage.mitigations, *stage.evaluators):
        problems += _unmet(spec, chosen, offered, registry)
    problems += _untrainable(stage, chosen, offered, registry)
    problems += _unvalidated(stage, around)
    problems += _unknown_tasks(stage, around)
    found, told = _watched(stage, around, "validation-data" in offered)
    return stage, problems + found, notes + told


def check_followed(stages: Sequence[StageSpec], registry: Registry) -> list[Problem]:
    """A stage starts from the plain model that the one before it left, and not every adaptation leaves one."""
    merging = sorted({e.variant.name for e in registry.entries("adaptation") if MERGE in e.variant.provides})
    return [
        Problem(
            stage.adaptation.path,
            f"what `{stage.adaptation.name}` learns stays beside the model and cannot be merged into it, so stage "
            f"`{following.name}` would start without it",
            f"use it in the last stage only; adaptations that merge: {', '.join(merging)}",
        )
        for stage, following in pairwise(stages)
        if MERGE not in stage.adaptation.provides()
    ]


def check_retained(
    objective: PartSpec,
    evaluators: Sequence[PartSpec],
    first: StageSpec,
    model: PartSpec,
    data: Mapping[str, PartSpec | None],
    registry: Registry,
) -> list[Problem]:
    """What is wrong with measuring the retained rows, where their objective is not the first stage's."""
    retain = data.get("retain")
    if retain is None:
        return []
    unmeasured = _unmeasured(evaluators, "retain-test-data", data)
    if objective == first.objective and tuple(evaluators) == first.evaluators:
        return unmeasured
    chosen = (model, objective, first.adaptation, retain)
    offered = frozenset().union(*(spec.provides() for spec in chosen), {EARLIER}, _from_data(data))
    found = [problem for spec in evaluators for problem in _unmet(spec, chosen, offered, registry)]
    return unmeasured + [replace(problem, reason=f"{problem.reason} (for data.retain)") for problem in found]


def _leave_idle_out(stage: StageSpec, around: Surroundings) -> tuple[StageSpec, list[str]]:
    """In a pipeline's first stage, default mitigations that guard earlier knowledge have nothing to guard."""
    if not around.several or around.has_earlier_stage or "retain" in around.top_data:
        return stage, []
    idle = [spec for spec in stage.mitigations if EARLIER in spec.needs() and not spec.path.startswith("stage.")]
    if not idle:
        return stage, []
    names = ", ".join(f"`{spec.name}`" for spec in idle)
    note = f"stage {stage.name}: {names} left out, for nothing was learned before it and there is no data.retain"
    kept = tuple(spec for spec in stage.mitigations if spec not in idle)
    return replace(stage, mitigations=kept), [note]


def _check_shares(stage: StageSpec) -> list[Problem]:
    fillers = [(spec, share) for spec in stage.mitigations if (share := spec.options.data_share())]
    total = sum(share for _, share in fillers)
    if total <= MOST_SHARED:
        return []
    text = " + ".join(f"{share:g} of `{spec.name}`" for spec, share in fillers)
    reason = f"the rows that mitigations mix in fill {total:g} of the training data ({text})"
    hint = f"the sum must be at most {MOST_SHARED:g}, so that the stage's own rows have room"
    return [Problem(fillers[0][0].path, reason, hint)]


def _not_installed(stage: StageSpec) -> list[Problem]:
    """What ``[training]`` asks for that needs a package which is not here."""
    chosen = {"optimizer": stage.training.optimizer.use, "attention": stage.training.attention}
    return [
        Problem(f"training.{key}", f"`{name}` needs {package}, which is not installed", mend)
        for key, name in chosen.items()
        for package, mend in [PACKAGES.get(name, ("ftk", ""))]
        if find_spec(package) is None
    ]


def _unmeasured(evaluators: Sequence[PartSpec], capability: str, data: Mapping[str, PartSpec | None]) -> list[Problem]:
    """Evaluators need rows to measure on, each task its own."""
    if not evaluators or capability in _from_data(data):
        return []
    names = ", ".join(f"`{spec.name}`" for spec in evaluators)
    whose = "of data.retain " if capability.startswith("retain-") else ""
    return [Problem(evaluators[0].path, f"{names}: there are no test rows {whose}to measure on", _mend(capability))]


def _mend(capability: str) -> str:
    """How to get what a key of ``[data]`` provides."""
    key, source = FROM_DATA[capability]
    rows = capability.removeprefix("retain-").removesuffix("-data")
    return f"add data.{key}, or a `data.{source}` source that keeps {rows} rows back itself"


def _unvalidated(stage: StageSpec, around: Surroundings) -> list[Problem]:
    """What validates on the retained task does so on every task before it, those of earlier stages too."""
    lacking = [name for name, data in around.earlier.items() if "validation-data" not in _from_data(data)]
    return [
        Problem(
            spec.path,
            f"`{spec.name}` needs validation data of every earlier task, and stage `{name}` has none",
            "add data.validation there, or a `data.train` source that keeps validation rows back itself",
        )
        for spec in stage.mitigations
        if "retain-validation-data" in spec.needs()
        for name in lacking
    ]


def _unknown_tasks(stage: StageSpec, around: Surroundings) -> list[Problem]:
    """A mitigation can speak of tasks that come before the stage, and of no other."""
    known = [*(["retain"] if "retain" in around.top_data else []), *around.earlier]
    return [
        Problem(spec.path, f"`{spec.name}`: no task `{name}` comes before this stage", did_you_mean(name, known))
        for spec in stage.mitigations
        for name in spec.options.earlier_tasks()
        if name not in known
    ]


def _watched(stage: StageSpec, around: Surroundings, validated: bool) -> tuple[list[Problem], list[str]]:
    """What keeps a stage from being measured while it trains, and which earlier tasks that leaves out."""
    training = stage.training
    if not training.evaluate_every:
        return [], []
    problems = []
    if not validated:
        reason = "measures on validation data, and there is none"
        hint = "add data.validation, or a `data.train` source that keeps validation rows back itself"
        problems.append(Problem("training.evaluate_every", reason, hint))
    if not stage.evaluators:
        hint = "add an [[evaluator]], or leave evaluate_every out"
        problems.append(Problem("training.evaluate_every", "measures with evaluators, and there is none", hint))
    names = [spec.metrics() for spec in stage.evaluators]
    measured = [metric for metrics in names for metric in metrics]
    if training.best_by and all(names) and training.best_by not in measured:
        hint = did_you_mean(training.best_by, measured)
        problems.append(Problem("training.best_by", f"no evaluator measures `{training.best_by}`", hint))
    seen = {name: "validation-data" in _from_data(data) for name, data in around.earlier.items()}
    if "retain" in around.top_data:
        seen = {"retain": "retain-validation-data" in _from_data(around.top_data), **seen}
    notes = [
        f"stage {stage.name}: evaluate_every leaves out task `{name}`, which has no validation data"
        for name, known in seen.items()
        if not known
    ]
    if training.retention_weight and not any(seen.values()):
        if seen or not around.several:
            reason = "weighs earlier tasks, and none is there to measure on validation data"
            hint = "add data.retain with data.retain_validation, or leave it out"
            problems.append(Problem("training.retention_weight", reason, hint))
        else:
            notes.append(
                f"stage {stage.name}: retention_weight has nothing to weigh, for nothing was learned before it"
            )
    return problems, notes


def _from_data(data: Mapping[str, PartSpec | None]) -> frozenset[str]:
    """The capabilities that the data sets provide: by being there, as a split, or as nothing to validate."""
    found = set()
    for capability, (key, source) in FROM_DATA.items():
        spec = data.get(source)
        if (
            key in data
            or source not in data
            or (spec is not None and capability.removeprefix("retain-") in spec.provides())
        ):
            found.add(capability)
    return frozenset(found)


def _untrainable(
    stage: StageSpec, chosen: Sequence[PartSpec], offered: frozenset[str], registry: Registry
) -> list[Problem]:
    """Options of the stage's ``[training]`` that none of its choices heeds."""
    return [
        Problem(f"training.{key}", *_explain(key, need, chosen, registry))
        for key, need in stage.training.needs().items()
        if need not in offered
    ]


def _unmet(spec: PartSpec, chosen: Sequence[PartSpec], offered: frozenset[str], registry: Registry) -> list[Problem]:
    return [
        Problem(spec.path, *_explain(spec.name, need, chosen, registry)) for need in spec.needs() if need not in offered
    ]


def _explain(name: str, need: str, chosen: Sequence[PartSpec], registry: Registry) -> tuple[str, str]:
    """Which choice fails to give what ``name`` needs, and which installed variants would give it."""
    reason = f"`{name}` needs {need}"
    if need == EARLIER:
        hint = "add data.retain: rows of what the starting model knows and must keep"
        return f"{reason}, and nothing was learned before this stage", hint
    if need == ROW_GRADIENTS:
        hint = "guard what was learned with another mitigation, such as replay or interpolation"
        return f"{reason}: an earlier task's objective compares rows, and a row alone has no gradient there", hint
    if need in FROM_DATA:
        return reason, _mend(need)
    reasons, hints = [], []
    for part in chosen:
        givers = sorted({e.variant.name for e in registry.entries(part.kind) if need in e.variant.provides})
        if givers:
            with_options = " with these options" if need in part.variant.provides else ""
            reasons.append(f"{part.kind} `{part.variant.name}`{with_options}")
            hints.append(f"{part.kind}s that do: {', '.join(givers)}")
    if not reasons:
        return f"{reason}, which nothing installed provides", ""
    return f"{reason}, which {' and '.join(reasons)} does not provide", "; ".join(hints)
