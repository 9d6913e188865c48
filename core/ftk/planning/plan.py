"""What a recipe will take on a machine: rows, steps and parameters, memory by part, and whether it fits."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from ftk.data.batches import pass_rows
from ftk.events import Events
from ftk.parts import ModelSource, Task, lengths_of
from ftk.parts.heads import Heads
from ftk.planning.devices import shares_of
from ftk.planning.held import Left
from ftk.planning.machine import Machine
from ftk.planning.memory import Station, count_memory
from ftk.planning.widest import Cut, longest, widest_cuts
from ftk.processes.meeting import make_accelerator
from ftk.recipe.building import build, same_spec
from ftk.recipe.specs import Recipe
from ftk.running.pipeline import Run
from ftk.running.rehearsal import without_weights
from ftk.running.stage import Stage


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take.

    Attributes:
        name: the stage's.
        counts: as :meth:`ftk.running.stage.Stage.plan` gives them.
        precision: of its matrix products.
        micro_batch: rows, and tokens of the longest of them, of the micro-batch that takes most.
        stations: what one device holds at its fullest moments.
        unknown: why activations and loss are not among the parts; empty where they are.
        partly: the mitigations of which what they compute from values is not among the parts.
        fits: whether the device has room for that; None where ``device_map`` puts layers on several, on which it
            depends what each holds.
        seconds_per_step: measured on this machine; None where it was not.
    """

    name: str
    counts: Mapping[str, Any]
    precision: str
    micro_batch: tuple[int, int]
    stations: tuple[Station, ...]
    unknown: str
    partly: tuple[str, ...]
    fits: bool | None
    seconds_per_step: float | None = None

    @property
    def peak(self) -> int:
        """The most bytes that one device holds."""
        return max(station.bytes for station in self.stations)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        seconds = self.seconds_per_step
        return {
            "name": self.name, **self.counts, "precision": self.precision,
            "micro_batch": {"rows": self.micro_batch[0], "tokens": self.micro_batch[1]},
            "memory": {station.name: dict(station.parts) for station in self.stations},
            "unknown": self.unknown, "partly": list(self.partly), "peak_bytes": self.peak, "fits": self.fits,
            "seconds_per_step": seconds,
            "seconds": None if seconds is None else seconds * self.counts["steps"],
        }  # fmt: skip


class Planner:
    """Plans the stages of one recipe; data and processor are read, weights are not.

    Args:
        recipe: what to plan.
        machine: for which.

    Raises:
        UserError: data, model configuration or processor cannot be read.
    """

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.machine = machine
        self.recipe = _to_plan(recipe, machine)
        self.job = Run(self.recipe, None, make_accelerator(), Events([]), lambda: False)
        self.job.source = build(self.recipe.model, ModelSource)
        self.job.read_rows()
        self.tasks: list[Task] = []
        self.left: dict[int, Mapping[str, Left]] = {0: {}}
        self._outlines: dict[int, Heads] = {}

    def changed(self, recipe: Recipe) -> Planner:
        """A planner of a recipe that differs in model, adaptation or training; rows are not read again."""
        other = copy.copy(self)
        other.recipe = _to_plan(recipe, self.machine)
        other.left = dict(self.left)
        other.job = copy.copy(self.job)
        other.job.recipe = other.recipe
        if not same_spec(self.recipe.model, recipe.model):
            other.job.source = build(recipe.model, ModelSource)
            other._outlines, other.left = {}, {0: {}}
        return other

    def stage(self, number: int) -> StagePlan:
        """Plan one stage, from 1; what mitigations keep from stage to stage is that of a plan of those before it."""
        if number - 1 not in self.left:
            self.stage(number - 1)
        left = self.left[number - 1]
        cuts: list[Cut] = []

        def choose(stage: Stage) -> list[Cut]:
            cuts.extend(widest_cuts(stage, self.machine.devices))
            return cuts

        device = self.job.accelerator.device
        with _many_threads() if self.machine.kind != device.type else nullcontext():
            found = count_memory(self.outline(number), lambda heads: self.set_up(number, heads), choose, device, left)
        self.left[number] = {**left, **found.left}
        if self.machine.kind == "cpu":
            found = found.with_checkpoints()
        stage = found.stage
        taken = {"libraries" if self.machine.kind == "cpu" else "device": self._taken}
        options, ctx = stage.spec.training, stage.ctx
        divided = options.sharding == "full"
        shares = shares_of(
            self.outline(number).model, ctx.model, self.machine.devices, divided, ctx.precision == "bf16"
        )
        stations = tuple(
            replace(station, parts={**taken, **station.parts}) for station in map(shares.of, found.stations)
        )
        cut = (cuts or widest_cuts(stage, self.machine.devices))[0]
        plan = StagePlan(
            stage.spec.name, stage.plan(), stage.ctx.precision, (len(cut[1]), longest(cut)), stations,
            found.unknown, found.partly, None,
        )  # fmt: skip
        return plan if options.device_map != "none" else replace(plan, fits=plan.peak <= self.machine.room)

    def outline(self, number: int) -> Heads:
        """The models of a stage on the device ``meta``."""
        if number not in self._outlines:
            heads = without_weights(self.job.load(outline=True))
            self._outlines[number] = self.job.turned(heads, number)
            if not self.tasks:
                self.tasks = self.job.tasks(heads.processor)
                for task in self.tasks:
                    len(task.train.items)  # encoded, and so of known lengths
                self._taken = self.machine.taken()
        return self._outlines[number]

    def set_up(self, number: int, heads: Heads) -> Stage:
        """The stage on these models, as one device of the machine will have it."""
        spec = self.recipe.stages[number - 1]
        ctx = self.job.context(number, heads, self.tasks)
        size = pass_rows(
            spec.training, self.machine.devices, lambda: max(int(lengths_of(t.train.items).max()) for t in self.tasks)
        )
        ctx = replace(ctx, micro_batch_size=size)
        return Stage(spec, ctx, self.job.accelerator, None, {}, lambda: False)


@contextmanager
def _many_threads() -> Iterator[None]:
    """Within it methods that cut their work by the threads of a CPU cut it about as coarsely as on a GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(16)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _to_plan(recipe: Recipe, machine: Machine) -> Recipe:
    """The recipe as it can be gone through here.

    Compiled code is planned as it stands before it is compiled, and for GPUs elsewhere ``auto`` is bf16, and fp16 takes
    what bf16 takes.
    """
    stages = []
    for stage in recipe.stages:
        update: dict[str, Any] = {"compile": False}
        if not machine.here and stage.training.precision != "fp32":
            update["precision"] = "bf16"
        stages.append(replace(stage, training=stage.training.model_copy(update=update)))
    return replace(recipe, stages=tuple(stages))
