"""Holds the parts of a stage against each other: what one needs, another must provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise

from ftk.errors import Problem, did_you_mean
from ftk.plugin.registry import Registry
from ftk.recipe.dividing import WHOLE_STEP, check_divided, check_placed
from ftk.recipe.measured import check_watched, unmeasured
from ftk.recipe.members import check_members, measurable
from ftk.recipe.optimizers import keeps_momentum
from ftk.recipe.sampled import TRAINED
from ftk.recipe.specs import PartSpec, StageSpec
from ftk.recipe.supplied import FROM_DATA, Surroundings, from_data, mend_of
from ftk.recipe.tested import TESTED

EARLIER = "earlier-data"
SOURCE_GRADIENTS = "source-gradients"
"""What the core gives to whoever needs it: the gradient of each source's rows apart."""
ROW_GRADIENTS = "row-gradients"
"""What the core gives where the objectives of all earlier tasks take each row by itself."""
SEVERAL_SOURCES = "several-sources"
"""Given where a step can hold rows of more than one task: its objective has several, or a mitigation mixes some in."""
MOMENTUM = "momentum"
"""Given where the optimizer keeps a running mean of the gradients that can be read."""
KNOB = "strength-knob"
"""Provided by a mitigation whose strength can be turned, to the others beside it."""
OF_TARGETS = {
    "earlier-target-sampling": ("target-sampling", "draws targets", "take the rows' own targets"),
    "earlier-target-listing": ("target-listing", "tries all targets", "take the rows' own targets"),
    "earlier-target-logits": ("target-logits", "keeps predictions", "know the other tasks alone, by its `tasks`"),
}
"""Given where the objectives of all earlier tasks provide what stands beside it; what is done by it, and what else."""
MERGE = "merge"
"""Provided by an adaptation that leaves a plain model which computes what was trained."""
SCALE = "weight-scale"
"""Provided by an adaptation whose drift can be scaled as a whole."""
SETS_DRIFT = {SCALE, "layer-scale", "weight-set"}
"""Needed by whatever sets the drift when the stage has ended."""
SEVERAL_MODELS = "several-models"
"""Needed by a method of merging that makes no sense of the two ends of a stage; only `ftk merge` gives it."""
GIVEN_BY_CORE = (
    EARLIER, MOMENTUM, *OF_TARGETS, ROW_GRADIENTS, SEVERAL_MODELS, SEVERAL_SOURCES, SOURCE_GRADIENTS,
)  # fmt: skip
"""Capabilities that no variant has to provide."""
MOST_SHARED = 0.99
"""The most of a training mix that mitigations may fill. An epoch holds ``1 / (1 - share)`` rows for each of the
stage's own, so that near 1 it has no end; a hundred are more than any method asks for."""

PACKAGES = {
    "adamw_8bit": ("bitsandbytes", "pip install bitsandbytes"),
    "flash_attention_2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": ("flash_attn_interface", "build it from `hopper/` of github.com/Dao-AILab/flash-attention"),
}
"""Choices in ``[training]`` that need a package which ftk does not: its module, and how to install it."""


def check_stage(
    stage: StageSpec, around: Surroundings, registry: Registry
) -> tuple[StageSpec, list[Problem], list[str]]:
    """The stage without mitigations that cannot act in it, its problems, and notes on what was left out."""
    stage, notes = _leave_idle_out(stage, around)
    problems = _check_shares(stage) + _not_installed(stage) + check_divided(stage, around.model, registry)
    problems += check_placed(stage)
    problems += unmeasured(stage.evaluators, "test-data", {**around.top_data, **around.data})
    found, told = check_members(stage)
    problems, notes = problems + found, notes + told
    if around.model is None:
        return stage, problems, notes
    chosen = (around.model, stage.objective, stage.adaptation, stage.data.train)
    offered = frozenset({SOURCE_GRADIENTS}).union(*(spec.provides() for spec in chosen))
    if around.has_earlier_stage or "retain" in around.top_data:
        offered |= {EARLIER}
    if not any(WHOLE_STEP in spec.provides() for spec in around.taught):
        offered |= {ROW_GRADIENTS}
    offered |= from_data({**around.top_data, **around.data}) | {TESTED}
    offered |= {TRAINED, *OF_TARGETS}  # check_sampled and _unsampled tell whether they are there
    offered -= {word for spec in chosen for word in spec.options.withheld() if word not in spec.variant.provides}
    if any(spec.options.data_share() for spec in stage.mitigations):
        offered |= {SEVERAL_SOURCES}
    if any(KNOB in spec.provides() for spec in stage.mitigations):
        offered |= {KNOB}
    if keeps_momentum(stage.training.optimizer):
        offered |= {MOMENTUM}
    members = stage.objective.parts
    for spec in (*chosen, *members, *stage.data.train.all_transforms(), *stage.mitigations):
        problems += _unmet(spec, chosen, offered, registry)
    for spec in stage.evaluators:
        problems += _unmet(spec, chosen, offered | measurable(spec, stage.objective), registry)
    heeded = offered.union(*(member.provides() for member in members))
    problems += _untrainable(stage, chosen, heeded, registry)
    problems += _unvalidated(stage, around)
    problems += _check_strengths(stage) + _unknown_tasks(stage, around) + _unsampled(stage, around, registry)
    found, told = check_watched(stage, around, "validation-data" in offered)
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
    if objective.parts:
        reason = f"data.retain is read with one objective, and `{objective.name}` is made of several"
        return [Problem(objective.path, reason, "write the one here, and this in a [[stage]]")]
    without_rows = unmeasured(evaluators, "retain-test-data", data)
    # What both tasks have is told of the first stage.
    others = [spec for spec in evaluators if objective != first.objective or spec not in first.evaluators]
    chosen = (model, objective, first.adaptation, retain)
    offered = frozenset().union(*(spec.provides() for spec in chosen), {EARLIER}, from_data(data))
    found = [problem for spec in others for problem in _unmet(spec, chosen, offered, registry)]
    return without_rows + [replace(problem, reason=f"{problem.reason} (for data.retain)") for problem in found]


def _leave_idle_out(stage: StageSpec, around: Surroundings) -> tuple[StageSpec, list[str]]:
    """In a pipeline's first stage, default mitigations that guard earlier knowledge have nothing to guard."""
    if not around.several or around.has_earlier_stage or "retain" in around.top_data:
        return stage, []
    default = [spec for spec in stage.mitigations if around.made or not spec.path.startswith("stage.")]
    idle = [spec for spec in default if EARLIER in spec.needs()]
    if not idle:
        return stage, []
    names = ", ".join(f"`{spec.name}`" for spec in idle)
    note = f"stage {stage.name}: {names} left out, for nothing was learned before it and there is no data.retain"
    kept = tuple(spec for spec in stage.mitigations if spec not in idle)
    return replace(stage, mitigations=kept), [] if around.made else [note]  # of a sequence, who reads it expects that


def _check_shares(stage: StageSpec) -> list[Problem]:
    fillers = [(spec, share) for spec in stage.mitigations if (share := spec.options.data_share())]
    total = sum(share for _, share in fillers)
    if total <= MOST_SHARED:
        return []
    text = " + ".join(f"{share:g} of `{spec.name}`" for spec, share in fillers)
    reason = f"the rows that mitigations mix in fill {total:g} of the training data ({text})"
    hint = f"the sum must be at most {MOST_SHARED:g}, so that the stage's own rows have room"
    return [Problem(fillers[0][0].path, reason, hint)]


def _check_strengths(stage: StageSpec) -> list[Problem]:
    """Only what stands in the stage can be turned, and the drift can be set by one alone: its calls are absolute."""
    known = [spec.name for spec in stage.mitigations if KNOB in spec.provides()]
    problems = [
        Problem(
            spec.path,
            f"`{spec.name}`: no mitigation `{name}` with a strength stands beside it",
            did_you_mean(name, known),
        )
        for spec in stage.mitigations
        for name in spec.options.turned()
        if name not in known
    ]
    scaling = [spec for spec in stage.mitigations if not SETS_DRIFT.isdisjoint(spec.needs())]
    if len(scaling) > 1:
        told = " and ".join(f"`{spec.name}`" for spec in scaling)
        reason = f"{told} each set which share of the drift is kept, and the later would undo the earlier"
        problems.append(Problem(scaling[1].path, reason, "keep one of them in a stage"))
    return problems


def _not_installed(stage: StageSpec) -> list[Problem]:
    """What ``[training]`` asks for that needs a package which is not here."""
    chosen = {"optimizer": stage.training.optimizer.use, "attention": stage.training.attention}
    return [
        Problem(f"training.{key}", f"`{name}` needs {package}, which is not installed", mend)
        for key, name in chosen.items()
        for package, mend in [PACKAGES.get(name, ("ftk", ""))]
        if find_spec(package) is None
    ]


def _unvalidated(stage: StageSpec, around: Surroundings) -> list[Problem]:
    """What validates on the retained task does so on every task before it, those of earlier stages too."""
    lacking = [name for name, data in around.earlier.items() if "validation-data" not in from_data(data)]
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


def _unsampled(stage: StageSpec, around: Surroundings, registry: Registry) -> list[Problem]:
    """A mitigation that asks targets of the model, of what came before, needs every earlier task's objective for it."""
    problems = []
    for need, (given, done, else_) in OF_TARGETS.items():
        lacking = sorted({spec.variant.name for spec in around.taught if given not in spec.provides()})
        able = {e.variant.name for e in registry.entries("objective") if given in e.variant.provides}
        givers = sorted(able.difference(lacking))  # one that is may have been ruled out by its options
        problems += [
            Problem(
                spec.path,
                f"`{spec.name}` {done} of every earlier task, and objective `{name}` of one does not give them",
                f"objectives that do: {', '.join(givers)}; or let `{spec.name}` {else_}",
            )
            for spec in stage.mitigations
            if need in spec.needs()
            for name in lacking
        ]
    return problems


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
        return reason, mend_of(need)
    if need == SEVERAL_SOURCES:
        hint = "use it beside the objective multitask, or beside a mitigation that mixes rows in, such as replay"
        return f"{reason}: all rows of a step are of one task here, and nothing can be in conflict", hint
    if need == MOMENTUM:
        hint = "choose adamw, muon, or sgd with momentum"
        return f"{reason}, and the optimizer of this stage keeps none that can be read", hint
    if need == KNOB:
        givers = sorted({e.variant.name for e in registry.entries("mitigation") if KNOB in e.variant.provides})
        return f"{reason}, and no other mitigation has a strength to turn", f"add one that has: {', '.join(givers)}"
    reasons, hints = [], []
    for part in chosen:
        if need in part.options.withheld() and need not in part.variant.provides:
            return f"{reason}, which {part.kind} `{part.variant.name}` rules out with these options", ""
        givers = sorted({e.variant.name for e in registry.entries(part.kind) if need in e.variant.provides})
        if givers:
            with_options = " with these options" if need in part.variant.provides else ""
            reasons.append(f"{part.kind} `{part.variant.name}`{with_options}")
            alone = givers == [part.variant.name]
            others = f"it does with others: see `ftk show {givers[0]}`"
            hints.append(others if alone else f"{part.kind}s that do: {', '.join(givers)}")
    if not reasons:
        return f"{reason}, which nothing installed provides", ""
    return f"{reason}, which {' and '.join(reasons)} does not provide", "; ".join(hints)
