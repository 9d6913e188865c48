"""A stage gone through on tensors without memory: what its device holds, by part, when it holds most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ftk.data.batches import as_batch
from ftk.parts.heads import Heads
from ftk.planning.held import (
    VALUES,
    Counting,
    Left,
    as_far_as_known,
    hold_what_is_remembered,
    kept_bytes,
    left_by,
    size_of,
)
from ftk.planning.tracking import Tracker
from ftk.planning.widest import Cut
from ftk.running.optimizing import build_optimizer
from ftk.running.rehearsal import copy_heads
from ftk.running.stage import Stage


@dataclass(frozen=True)
class Station:
    """A moment of a stage at which much is held.

    Attributes:
        name: ``remember`` (a mitigation looks at an earlier task), ``step`` (an optimizer step) or ``save`` (a
            checkpoint is copied after the last one).
        parts: bytes by part: ``weights``, ``gradients``, ``optimizer``; ``starting copy``, ``mitigation NAME`` and
            ``objective``, what adaptation, mitigations and objectives keep; ``activations``, what the model's layers
            keep and make on the way forward and back; ``loss``, the same of what comes behind the last layer.
    """

    name: str
    parts: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Counted:
    """What going through a stage showed.

    Attributes:
        stage: the stage, on tensors without values.
        stations: each with the most that is held there.
        unknown: why activations and loss are not among the parts; empty where they are.
        copied: bytes that a checkpoint copies: of what is trained and of the optimizer's state, and of what the
            mitigations keep, which does not change again.
        partly: the mitigations that compute something from values, and what they make of those is not counted.
        left: what the mitigations leave to the next stage.
    """

    stage: Stage
    stations: tuple[Station, ...]
    unknown: str
    copied: tuple[int, int, int] = (0, 0, 0)
    partly: tuple[str, ...] = ()
    left: Mapping[str, Left] = field(default_factory=dict)

    def with_checkpoints(self) -> Counted:
        """The same where checkpoints are copied into the memory that is planned: on a CPU.

        A copy lasts until it is written, while training goes on. The first is made before there is an optimizer's
        state, where there is something to remember; the last when the gradients are gone.
        """
        *before, step = self.stations
        trained, optimizer, kept = self.copied
        options, steps = self.stage.spec.training, self.stage.plan()["steps"]
        beside = max(0, trained + kept - optimizer) if self.stage.mitigations.parts else 0
        if options.checkpoint_every and steps > options.checkpoint_every:
            beside = max(beside, trained + optimizer)
        passing = ("activations", "loss", "gradients")
        lasting = {part: size for part, size in step.parts.items() if part not in passing}
        saving = Station("save", {**lasting, "checkpoint": trained + optimizer})
        if beside:
            step = Station(step.name, {**step.parts, "checkpoint": beside})
        return replace(self, stations=(*before, step, saving))


def count_memory(
    outline: Heads,
    set_up: Callable[[Heads], Stage],
    cuts: Callable[[Stage], Sequence[Cut]],
    device: torch.device,
    left: Mapping[str, Left],
) -> Counted:
    """Go through a stage as a run would, with every floating-point tensor fake.

    Args:
        outline: the models it starts from; they are copied, and their values are not looked at.
        set_up: makes the stage of them.
        cuts: the micro-batches of the step to take.
        device: what is counted.
        left: what the mitigations of the stages before left.

    Raises:
        UserError: the stage cannot be set up.
    """
    tracker = Tracker(device)
    partly: set[str] = set()

    def hollow(tensor: Tensor) -> Tensor:
        made = tracker.hollow(tensor)
        tracker.claim([made], tracker.part)
        return made

    heads = copy_heads(outline, tracker.hollow)
    tracker.claim(_tensors(heads.models.values()), "weights")
    for model in heads.models.values():
        if hasattr(model, "set_experts_implementation"):
            # The kernel for many products at once knows no float32 without values; where the experts are called one
            # after the other, what each of them gets shows as unknown.
            model.set_experts_implementation("eager")
    with tracker:
        with tracker.counting("starting copy"):
            stage = set_up(heads)
            go_to_the_end(stage)
        model = stage.ctx.model
        tracker.claim(_tensors([model]), "weights")
        stations, unknown, optimizer = [], "", None
        with told_apart(model, tracker, heads.beside.values()):
            try:
                tracker.restart()
                hold_what_is_remembered(stage, left, hollow, partly, tracker.counting)
                if tracker.peak["activations"]:
                    stations.append(_station("remember", tracker))
                optimizer = _optimizer(stage, tracker)
                tracker.restart()
                take_step(stage, optimizer, cuts(stage), partly, tracker.counting)
            except VALUES as error:
                unknown = f"what is computed depends on values, which a plan does not have ({error.func})"
            stations.append(_station("step", tracker))
            copied = (
                size_of(stage.adaptation.state_dict().values()),
                0 if optimizer is None else size_of(v for kept in optimizer.state.values() for v in kept.values()),
                kept_bytes(stage.mitigations.parts),
            )
    return Counted(stage, tuple(stations), unknown, copied, tuple(sorted(partly)), left_by(stage))


def _tensors(models: Iterable[nn.Module]) -> list[Tensor]:
    """Their parameters and buffers."""
    return [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]


def _station(name: str, tracker: Tracker) -> Station:
    """The tracker's peak, what lasts before what passes."""
    ends = {part: place for place, part in enumerate(("activations", "loss"), start=1)}
    starts = {part: place for place, part in enumerate(("weights", "gradients", "optimizer"), start=-3)}
    found = sorted(tracker.peak, key=lambda part: {**starts, **ends}.get(part, 0))
    return Station(name, {part: tracker.peak[part] for part in found if tracker.peak[part] > 0})


@contextmanager
def told_apart(model: nn.Module, tracker: Tracker, beside: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Within it, what passes is counted as ``activations`` in the model's trunk and as ``loss`` behind it."""

    entered: list[str] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        entered.append(tracker.part)
        tracker.part = "activations"

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        before = entered.pop()
        tracker.part = before if before.startswith("mitigation ") else "loss"  # what it makes of a pass is its own
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(come_back)  # type: ignore[no-untyped-call]

    def come_back(gradient: Tensor) -> None:
        tracker.part = "activations"

    def arrived(parameter: Tensor) -> None:
        tracker.claim([parameter.grad], "gradients")

    trunk: Any = getattr(model, "base_model", model)
    with ExitStack() as stack:
        stack.callback(trunk.register_forward_pre_hook(enter).remove)
        stack.callback(trunk.register_forward_hook(leave).remove)
        for parameter in (*model.parameters(), *beside):
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]
                stack.callback(hook.remove)
        yield


def go_to_the_end(stage: Stage) -> None:
    """Train what the last step trains, the most of all steps where an adaptation thaws one part after another."""
    steps = stage.plan()["steps"]
    stage.ctx = replace(stage.ctx, step=steps - 1, steps=steps)
    stage.adaptation.before_step(stage.ctx)


def take_step(
    stage: Stage, optimizer: torch.optim.Optimizer, cuts: Iterable[Cut], partly: set[str], counting: Counting
) -> None:
    """An optimizer step over these micro-batches, as :meth:`ftk.running.loop.Loop.step` takes it."""
    ctx, mitigations = replace(stage.ctx, optimizer=optimizer), stage.mitigations
    gradients = ctx.gradients()
    mixer = stage.mixer()
    sources = [source.name for source in mixer.sources] if stage.by_source else []
    with counting("gradients"):
        for name in ctx.heads.beside if ctx.heads else ():
            gradients[name]  # a step has rows of all tasks, and these micro-batches of one
    for each in ctx.all_models():
        each.train()
    for objective, items in cuts:
        with counting("loss"):
            here = ctx.through(objective)
            batch = as_batch(objective, items).to(ctx.device)
            with ctx.autocast(), stage.switches.around(batch):
                loss = objective.loss(here.model, batch, here)
            total = loss.total
            for name in mitigations.acting("penalty"):
                with as_far_as_known(name, partly):
                    extra = mitigations.parts[name].penalty(batch, loss, here)
                    total = total if extra is None else total + extra
                    del extra
            total.backward()  # type: ignore[no-untyped-call]
            del loss, total
    with counting("gradients"), torch.no_grad():
        for source in sources:
            gradients.set_aside(source)
        gradients.join()
        joined = {name: p.grad for name, p in gradients.parameters().items()}
        for beside in mixer.beside:
            gradients.keep(beside.name)
        for name, p in gradients.parameters().items():
            p.grad = joined[name]
        for name in mitigations.acting("read_gradients"):
            with as_far_as_known(name, partly):
                mitigations.parts[name].read_gradients(gradients, ctx)
        stage.adaptation.edit_gradients(gradients, ctx)
        for name in mitigations.acting("edit_gradients"):
            with as_far_as_known(name, partly):
                mitigations.parts[name].edit_gradients(gradients.seen_by(name), ctx)
        gradients.clip_(stage.spec.training.max_grad_norm)
    with counting("optimizer"), torch.no_grad():
        optimizer.step()
        stage.adaptation.after_step(ctx)
        optimizer.zero_grad()
    for name in mitigations.acting("after_step"):
        with counting(f"mitigation {name}"), torch.no_grad(), as_far_as_known(name, partly):
            mitigations.parts[name].after_step(ctx)


def new_optimizer(stage: Stage) -> torch.optim.Optimizer:
    """The optimizer that a stage begins with."""
    options, model = stage.spec.training, stage.ctx.model
    groups = stage.adaptation.param_groups(model, options.learning_rate)
    return build_optimizer(options, groups, model, stage.ctx.device)


def _optimizer(stage: Stage, tracker: Tracker) -> torch.optim.Optimizer:
    """The stage's optimizer as it is after its first step."""
    optimizer = new_optimizer(stage)
    with tracker.counting("optimizer"):
        list(stage.ctx.gradients().values())  # each is made when it is asked for
        optimizer.step()
        optimizer.zero_grad()
    return optimizer
