"""What a recipe that divides the model among processes or devices cannot ask for, each with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from ftk.errors import Problem
from ftk.plugin.registry import Registry
from ftk.recipe.complaints import show
from ftk.recipe.specs import PartSpec, StageSpec

SHARDING = "sharding"
"""The capability of acting on weights of which each process holds its rows."""
WHOLE_STEP = "whole-step"
"""Provided by an objective that compares the rows of a step with each other."""

WHOLE = {
    "muon": "makes whole matrices orthogonal",
    "adafactor": "works with means over whole columns",
    "adamw_8bit": "keeps its state in blocks that do not follow a weight's rows",
}
"""Why an optimizer cannot step on shards."""


def check_divided(stage: StageSpec, model: PartSpec | None, registry: Registry) -> list[Problem]:
    """What of a stage cannot act on a divided model; nothing where the model is whole."""
    training = stage.training
    if training.sharding == "none":
        return []
    found = []
    if model is not None and SHARDING in model.options.withheld():
        reason = f"model `{model.name}` with these options holds weights that are not divided among processes"
        found.append(Problem("training.sharding", reason, "leave it out"))
    if WHOLE_STEP in stage.objective.provides():
        reason = f"`{stage.objective.name}` embeds every row twice, and has not been tried on divided weights"
        found.append(Problem("training.sharding", reason, "leave it out"))
    for spec in (stage.adaptation, *stage.mitigations):
        if SHARDING not in spec.provides():
            able = sorted({e.variant.name for e in registry.entries(spec.kind) if SHARDING in e.variant.provides})
            reason = f"`{spec.name}` is not made for weights that are divided among processes (training.sharding)"
            found.append(Problem(spec.path, reason, f"{spec.kind}s that are: {', '.join(able)}" if able else ""))
    if (name := training.optimizer.use) in WHOLE:
        reason = f"{name} {WHOLE[name]}, and training.sharding leaves no process with a whole weight"
        found.append(Problem("training.optimizer", reason, 'write optimizer = "adamw" or "sgd"'))
    if training.precision == "fp16":
        reason = "a step that fp16 must skip would be skipped by some of the processes and not by others"
        found.append(Problem("training.precision", f"{reason}, with training.sharding", 'write precision = "bf16"'))
    if training.compile:
        reason = "has not been tried on a model that training.sharding puts together layer by layer"
        found.append(Problem("training.compile", reason, "leave one of the two out"))
    if training.loss_chunks not in ("auto", 1):
        reason = "reads the output layer's weight outside its layer, and training.sharding divides it"
        found.append(Problem("training.loss_chunks", reason, "leave it out; a smaller micro_batch_size saves memory"))
    return found


def check_placed(stage: StageSpec) -> list[Problem]:
    """What of a stage cannot be done where layers lie on several devices; nothing where they lie on one."""
    training = stage.training
    if training.device_map == "none":
        return []
    found = []
    if training.sharding != "none":
        reason = "places layers on the devices of one process, and training.sharding divides each among several"
        found.append(Problem("training.device_map", reason, "leave one of the two out"))
    if training.optimizer.use == "adamw_8bit":
        reason = "adamw_8bit keeps its state on a GPU, and training.device_map may leave a trained weight off it"
        found.append(Problem("training.optimizer", reason, 'write optimizer = "adamw"'))
    if training.precision == "fp16":
        reason = "fp16 scales the loss of one device, and has not been tried on several (training.device_map)"
        found.append(Problem("training.precision", reason, 'write precision = "bf16"'))
    if training.compile:
        reason = "cannot follow weights that come to a layer and go again (training.device_map)"
        found.append(Problem("training.compile", reason, "leave one of the two out"))
    if training.loss_chunks not in ("auto", 1):
        reason = "reads the output layer's weight outside its layer, and training.device_map may leave it elsewhere"
        found.append(Problem("training.loss_chunks", reason, "leave it out; a smaller micro_batch_size saves memory"))
    return found


def check_alike(stages: Sequence[StageSpec]) -> list[Problem]:
    """A model is divided or placed once, before the first stage, a divided one for a precision that then holds."""
    divided = any(stage.training.sharding != "none" for stage in stages)
    found = []
    for key in ("sharding", "precision", "device_map", "max_memory"):
        values = [getattr(stage.training, key) for stage in stages]
        different = [value for place, value in enumerate(values) if value not in values[:place]]
        if len(different) > 1 and (divided or key != "precision"):
            told = " and ".join(f'"{value}"' if isinstance(value, str) else show(value) for value in different)
            reason = f"is {told} in different stages, and a model is divided once for all of them"
            found.append(Problem(f"training.{key}", reason, "write it once, in the [training] at the top"))
    return found
