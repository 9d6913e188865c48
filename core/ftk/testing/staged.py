"""A toy stage with one mitigation, as the core makes and runs it: what the contract of mitigations is held in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from ftk.data.batches import as_batch
from ftk.data.mixing import Item
from ftk.parts import Context, Features, Gradients, Mitigation, Objective, Source, State
from ftk.recipe.building import build
from ftk.recipe.specs import DataSpec, PartSpec, StageSpec
from ftk.recipe.training import Training
from ftk.running.folder import RunFolder
from ftk.running.stage import Stage, StageResult
from ftk.testing.subject import Subject, hold, seeded, snapshot

STEPS = 4


@dataclass(frozen=True)
class Trained:
    """A stage that has run: what it left, its weights at the end, and its mitigation."""

    stage: Stage
    result: StageResult
    weights: dict[str, Tensor]
    part: Mitigation


def toy_stage(
    subject: Subject,
    adaptation: PartSpec,
    folder: RunFolder | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
    ctx: Context | None = None,
    carried: Mapping[str, State] | None = None,
) -> Stage:
    """A stage as the core makes it: half of the rows are what was learned earlier, half what is new."""
    (objective_spec, *_) = subject.companions("objective")
    evaluators = tuple(subject.companions("evaluator"))
    training = Training(
        steps=STEPS,
        batch_size=4,
        micro_batch_size=2,
        learning_rate=1e-2,
        precision="fp32",
        checkpoint_every=0,
    )
    # The stage never looks at its data table: the rows are in the context's tasks.
    data = cast(DataSpec, None)
    spec = StageSpec("toy", objective_spec, adaptation, data, (subject.spec,), evaluators, training)
    if ctx is None:
        objective = build(objective_spec, Objective)
        half = len(subject.rows) // 2
        hold(half >= 2, "the rows must be four at least")
        earlier = subject.task("earlier", objective, subject.rows[:half])
        task = subject.task("new", objective, subject.rows[half:])
        ctx = subject.context(subject.model(), objective, task=task, earlier=[earlier], micro_batch_size=2)
    with seeded(0):
        return Stage(spec, ctx, Accelerator(device_placement=False), folder, carried or {}, stop_requested)


def following_stage(
    subject: Subject, adaptation: PartSpec, carry: Callable[[Mapping[str, State]], Mapping[str, State]] = dict
) -> Stage:
    """The stage that follows on a toy stage which has run, with the states that ``carry`` makes of what that left."""
    first = train(toy_stage(subject, adaptation), 1)
    model, before = first.stage.adaptation.merge(), first.stage.ctx
    ctx = replace(before, model=model, adaptation=None, stage=2, earlier=(*before.earlier, *before.taught))
    return toy_stage(subject, adaptation, ctx=ctx, carried=carry(first.result.states))


def train(stage: Stage, noise: int = 0) -> Trained:
    """Run the stage, with torch's global generator at ``noise``: nothing may depend on it."""
    with seeded(noise):
        result = stage.run()
    (part,) = stage.mitigations.parts.values()
    return Trained(stage, result, snapshot(stage.ctx.model), part)


def prepared(stage: Stage) -> Mitigation:
    """The stage's mitigation once it has seen what was learned earlier."""
    stage._remember()
    stage.mitigations.begin(stage.ctx)
    (part,) = stage.mitigations.parts.values()
    return part


def with_gradients(subject: Subject) -> tuple[Mitigation, Context, Gradients]:
    """The mitigation in a step, with the gradients of its loss, at weights that have moved."""
    stage = toy_stage(subject, subject.companions("adaptation")[0])
    part = prepared(stage)
    move(stage)
    ctx, gradients = stage.ctx, Gradients(stage.ctx.model)
    task = ctx.taught[0]
    for source in part.sources(ctx):
        if source.reference_rows:
            _backward(source.objective, source.items[: source.reference_rows], ctx)
            gradients.keep(f"part/{source.name}")
    _backward(task.objective, task.train.items, ctx)
    if stage.by_source:
        gradients.set_aside("train")
        gradients.join()
    return part, ctx, gradients


def _backward(objective: Objective, items: Sequence[Any], ctx: Context) -> None:
    torch.autograd.backward(objective.loss(ctx.model, objective.collate(items), ctx).total)


@torch.no_grad()
def move(stage: Stage) -> None:
    """Move what is trained away from where it started, so that whatever depends on drift has some."""
    with seeded(3):
        for parameter in stage.ctx.model.parameters():
            if parameter.requires_grad:
                parameter.add_(1e-2 * torch.randn_like(parameter))
    stage.ctx.model.eval()


def penalty_of(part: Mitigation, ctx: Context, items: Sequence[Any]) -> Tensor | None:
    batch = ctx.objective.collate(items)
    return part.penalty(batch, ctx.objective.loss(ctx.model, batch, ctx), ctx)


def added_by(stage: Stage) -> dict[str, Tensor]:
    """The gradients of the stage's first rows, with what its mitigation adds by rows, by penalty and by editing."""
    ctx = stage.ctx
    gradients = Gradients(ctx.model)
    ctx.model.zero_grad()
    batch = ctx.objective.collate(ctx.taught[0].train.items[:2])
    torch.autograd.backward(stage.mitigations.penalty(batch, ctx.objective.loss(ctx.model, batch, ctx), ctx))
    for source in stage.mitigations.sources(ctx):
        batch, here = as_batch(source.objective, first_items(source, 2)), ctx.through(source.objective)
        torch.autograd.backward(source.objective.loss(here.model, batch, here).total)
    if stage.by_source:
        gradients.set_aside("train")
        gradients.join()
    stage.mitigations.edit_gradients(gradients, ctx)
    return {name: gradient.clone() for name, gradient in gradients.items()}


def first_items(source: Source, count: int) -> list[Features]:
    """The first items of a source, as the mixer hands them on."""
    found: list[Features] = []
    for number in range(min(count, len(source.items))):
        item = Item(source.items[number])
        item.origin = source.name, number
        found.append(item)
    return found


def stop_after(steps: int) -> Callable[[], bool]:
    """A request to stop that comes in the given step."""
    asked: Iterator[bool] = iter([False] * (steps - 1))
    return lambda: next(asked, True)


def rows_of(sources: Sequence[Source]) -> list[Any]:
    return [
        (
            source.name,
            source.share,
            [{name: array.tolist() for name, array in item.items()} for item in source.items],
        )
        for source in sources
    ]
