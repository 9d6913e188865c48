"""What a stage's result depends on, and what the scores measured after it, as keys by content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ftk.data.cache import key_of
from ftk.data.keys import code_key, part_key
from ftk.data.rows import Rows
from ftk.processes.environment import decisive
from ftk.recipe.measured import WHILE_TRAINING
from ftk.recipe.members import task_specs
from ftk.recipe.specs import PartSpec
from ftk.running.pipeline import Run

OF_TRAINING = {"learning_rate", "optimizer", "schedule", "epochs", "steps", "warmup", "warmup_steps", "weight_decay"}
"""Keys of ``[training]`` by which a model that is only measured does not come out otherwise."""
OF_THE_RECORD = {"log_every", "checkpoint_every", "keep_checkpoints"}
"""Keys of ``[training]`` by which no result does."""


def stage_keys(run: Run) -> list[str]:
    """A key for the starting model and one for each stage of a run that has read its rows.

    Equal keys mean equal bits: a key holds everything that a stage depends on, that of the stage before it first. Empty
    where the model source does not say what its model depends on.
    """
    recipe, made_of = run.recipe, run.source.identity()
    if made_of is None:
        return []
    evaluators = [spec.evaluators for spec in task_specs(recipe)]
    # A source may train a tokenizer on all rows that are trained on; and heads of later stages are drawn at the start.
    begun = [[*_taught(rows), asdict(rows.objective.head)] for rows in run.rows]
    device = str(run.accelerator.device)
    keys = [
        key_of(
            "start", decisive(), code_key("ftk"), device, recipe.seed, _whole(recipe.model), made_of, begun,
            recipe.stages[0].training.model_dump(mode="json", exclude=OF_TRAINING | OF_THE_RECORD),
        )
    ]  # fmt: skip
    for number, stage in enumerate(recipe.stages, start=1):
        known = slice(run.taught(number).stop)
        watched = _watched(run.rows[known], evaluators[known])
        keys.append(
            key_of(
                "stage", keys[-1], stage.name, _whole(stage.objective), _whole(stage.adaptation),
                [_whole(spec) for spec in stage.mitigations],
                stage.training.model_dump(mode="json", exclude=OF_THE_RECORD),
                [[_measuring(run, spec) for spec in specs] for specs in evaluators[known]] if watched else [],
            )
        )  # fmt: skip
    return keys


def measured_keys(run: Run) -> dict[str, str]:
    """By task a key of what its scores depend on beside the model: how it is measured, and on which rows."""
    return {
        rows.task: key_of(
            "measured", rows.task, _whole(rows.spec), [_measuring(run, evaluator) for evaluator in spec.evaluators],
            [rows.roles["test"].key if "test" in rows.roles else None],
            [[name, found.key] for name, found in rows.probes.items()],
        )
        for rows, spec in zip(run.rows, task_specs(run.recipe), strict=True)
    }  # fmt: skip


def _taught(rows: Rows) -> list[Any]:
    """What a task gives to training, and to the choices that are made in it."""
    roles = {role: found.key for role, found in rows.roles.items() if role != "test"}
    return [rows.task, _whole(rows.spec), rows.objective.identity(), rows.passes, roles]


def _watched(known: Iterable[Rows], evaluators: Iterable[Sequence[PartSpec]]) -> bool:
    """Whether there is something to measure while a stage trains, so that evaluators have a say in its result."""
    validated = any("validation" in rows.roles for rows in known)
    return validated or any(WHILE_TRAINING in spec.provides() for specs in evaluators for spec in specs)


def _measuring(run: Run, evaluator: PartSpec) -> list[Any]:
    return [_whole(evaluator), [[part.name, run.reader.read(part, "test").key] for part in evaluator.parts]]


def _whole(spec: PartSpec) -> list[Any]:
    """A part with its options, the code of its package, and the parts that it is made of."""
    return [part_key(spec), spec.name, [_whole(part) for part in (*spec.parts, *spec.transforms)]]
