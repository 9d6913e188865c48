"""Any number of mitigations as one: each contributes, in recipe order, and its time is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from ftk.disk.bundles import RESTING
from ftk.errors import FtkError, RunFailed
from ftk.parts import Batch, Context, Gradients, Importance, Knob, Loss, Mitigation, Source, State, Task
from ftk.parts.growing import grown
from ftk.recipe.building import build
from ftk.recipe.specs import PartSpec
from ftk.report.clock import Clock

CPU = torch.device("cpu")
STATIONS = ("remember", "begin", "sources", "penalty", "read_gradients", "edit_gradients", "after_step", "finish")
"""The moments of a stage at which a mitigation may act, in their order."""

OUTSIDE = "outside steps"
"""No name of a mitigation; the clock's for what mitigations do before the first step and after the last."""
IN_STEPS = ("penalty", "read_gradients", "edit_gradients", "after_step")


def stations_of(mitigation: Mitigation) -> tuple[str, ...]:
    """The stations at which this mitigation does something."""
    return tuple(name for name in STATIONS if getattr(type(mitigation), name) is not getattr(Mitigation, name))


class Composition:
    """The mitigations of one stage, by name and in recipe order.

    Args:
        parts: the mitigations by their names in the recipe.
        device: where they work, for their times.
    """

    def __init__(self, parts: Mapping[str, Mitigation], device: torch.device = CPU) -> None:
        self.parts = dict(parts)
        self.clock = Clock([*parts, OUTSIDE], device)
        self.remembered: dict[str, list[str]] = {name: [] for name in parts}
        self._acting = {
            station: [(name, part) for name, part in parts.items() if station in stations_of(part)]
            for station in STATIONS
        }
        self._acting["after_step"].sort(key=lambda named: not named[1].moves_weights)

    def acting(self, station: str) -> list[str]:
        """The names of the mitigations that do something at a station, in order."""
        return [name for name, _ in self._acting[station]]

    def knobs(self) -> dict[str, Knob]:
        """The strengths that can be turned, by mitigation."""
        return {name: part.knob for name, part in self.parts.items() if part.knob is not None}

    def remember(self, tasks: Sequence[Task], ctx: Context) -> None:
        """Let each mitigation see each body of knowledge that it has not seen yet; the stage has taught nothing."""
        ctx = replace(ctx, task=None, beside=())
        for name, part in self._acting["remember"]:
            for task in tasks:
                if task.name not in self.remembered[name]:
                    with self._guarded(name, "remember"):
                        part.remember(task, ctx.through(task.objective))
                    self.remembered[name].append(task.name)

    def begin(self, ctx: Context) -> None:
        for name, part in self._acting["begin"]:
            with self._guarded(name, "begin"):
                part.begin(ctx)

    def sources(self, ctx: Context) -> list[Source]:
        """All rows to mix in; each source's name begins with its mitigation's."""
        found = []
        for name, part in self._acting["sources"]:
            with self._guarded(name, "sources"):
                found += [replace(source, name=f"{name}/{source.name}") for source in part.sources(ctx)]
        return found

    def penalty(self, batch: Batch, loss: Loss, ctx: Context) -> Tensor:
        """The loss's total with every penalty added."""
        total = loss.total
        for name, part in self._acting["penalty"]:
            with self._guarded(name, "penalty"):
                extra = part.penalty(batch, loss, ctx)
                if extra is not None:
                    total = total + extra
        return total

    @torch.no_grad()
    def read_gradients(self, gradients: Gradients, ctx: Context) -> None:
        for name, part in self._acting["read_gradients"]:
            with self._guarded(name, "read_gradients"):
                part.read_gradients(gradients, ctx)

    @torch.no_grad()
    def edit_gradients(self, gradients: Gradients, ctx: Context) -> list[Tensor]:
        """Let each edit the gradients; returns their norm before each."""
        norms = []
        for name, part in self._acting["edit_gradients"]:
            norms.append(gradients.norm())
            with self._guarded(name, "edit_gradients"):
                part.edit_gradients(gradients.seen_by(name), ctx)
                if ctx.adaptation is not None and isinstance(ctx.model, FSDPModule):
                    ctx.adaptation.settle()
        return norms

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        for name, part in self._acting["after_step"]:
            with self._guarded(name, "after_step"):
                part.after_step(ctx)

    def finish(self, ctx: Context) -> None:
        for name, part in self._acting["finish"]:
            with self._guarded(name, "finish"):
                part.finish(ctx)

    def report(self) -> dict[str, dict[str, Any]]:
        """By mitigation: the seconds it took and what it says of itself."""
        told: dict[str, dict[str, Any]] = {}
        seconds = self.clock.seconds()
        for name, part in self.parts.items():
            told[name] = {"seconds": round(seconds[name], 3)}
            with self._guarded(name, "report"):
                told[name].update(part.report())
        return told

    @torch.no_grad()
    def weigh(self, ctx: Context) -> dict[str, Mapping[str, Importance]]:
        """By mitigation: what it says of weights."""
        told: dict[str, Mapping[str, Importance]] = {}
        for name, part in self.parts.items():
            with self._guarded(name, "weigh"):
                told[name] = part.weigh(ctx)
        return told

    def states(self) -> dict[str, State]:
        """The state of each mitigation, by the name that it has in a bundle."""
        states = {}
        for name, part in self.parts.items():
            with self._guarded(name, "state_dict"):
                states[RESTING + name] = part.state_dict()
        return states

    def progress(self) -> dict[str, Any]:
        """What the composition itself must remember: JSON values."""
        return {"seconds": self.clock.seconds(), "remembered": self.remembered}

    def load(self, states: Mapping[str, State], progress: Mapping[str, Any], ctx: Context) -> None:
        """Take back states, out of a bundle, and progress; mitigations that are new in this stage start empty."""
        self.clock.set(progress["seconds"])
        for name, part in self.parts.items():
            if name in progress["remembered"]:
                self.remembered[name] = list(progress["remembered"][name])
                try:
                    part.load_state_dict(grown(states.get(RESTING + name, {}), part.of_weights, ctx))
                except ValueError as error:
                    raise RunFailed(f"mitigation `{name}` refused its saved state: {error}") from error

    def go_back(self, states: Mapping[str, State]) -> None:
        """The stage leaves the weights of an earlier step, whose bundle this is."""
        for name, part in self.parts.items():
            with self._guarded(name, "go_back"):
                part.go_back(states[RESTING + name])

    @contextmanager
    def _guarded(self, name: str, station: str) -> Iterator[None]:
        try:
            with self.clock.timed(name), nullcontext() if station in IN_STEPS else self.clock.timed(OUTSIDE):
                yield
        except FtkError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise RunFailed(f"mitigation `{name}` failed in its station `{station}`: {told}") from error


def build_named(specs: Sequence[PartSpec]) -> dict[str, Mitigation]:
    """Build mitigations by their names in the recipe."""
    return {spec.name: build(spec, Mitigation) for spec in specs}
