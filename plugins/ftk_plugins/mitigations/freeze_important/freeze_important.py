"""Freezes, entry by entry, what matters most to what was learned before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import Context, Gradients, Mitigation, State, Task, add_up, own_rows
from ftk_plugins.mitigations.ewc.fisher import Estimate
from ftk_plugins.mitigations.freeze_important.options import FreezeImportantOptions
from ftk_plugins.mitigations.largest import least_of_largest
from ftk_plugins.mitigations.mas.mas import squared_outputs
from ftk_plugins.mitigations.measured import MeasuredPull

_MASK = "mask/"
NAME = "freeze_important"


class FreezeImportant(Mitigation):
    """Takes the frozen entries out of every gradient, and puts them back after every step.

    What matters is summed over the tasks remembered, each scaled to mean 1. Entries of no importance, as those of
    tokens that no row has, are never frozen. Which are is decided when a stage begins, and is part of the state, with
    the importances.
    """

    moves_weights = True
    of_weights = MeasuredPull.of_weights

    def __init__(self, options: FreezeImportantOptions) -> None:
        self.options = options
        self._seen = _Seen(options)
        self._stage = 0
        self._masks: dict[str, Tensor] = {}
        self._frozen: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = 0

    def remember(self, task: Task, ctx: Context) -> None:
        if self.options.by != "magnitude":
            self._seen.remember(task, ctx)

    def rehearse(self, task: Task, ctx: Context) -> None:
        if self.options.by != "magnitude":
            self._seen.rehearse(task, ctx)

    def begin(self, ctx: Context) -> None:
        weights = {name: drift.weight for name, drift in self._seen.drifts(ctx).items()}
        if self._stage != ctx.stage:
            self._masks = self._choose(weights)
            self._stage = ctx.stage
        self._frozen = []
        for name, weight in weights.items():
            if name in self._masks:
                self._masks[name] = self._masks[name].to(weight.device)
                mask = own_rows(self._masks[name])[0]
                self._frozen.append((weight, mask, own_rows(weight)[0].detach()[mask]))
        self._count = sum(len(values) for _, _, values in self._frozen)
        if any(isinstance(weight, DTensor) for weight in weights.values()):
            self._count = int(add_up([self._count], ctx)[0])

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        for weight, mask, _ in self._frozen:
            if weight.grad is not None:
                own_rows(weight.grad)[0].masked_fill_(mask, 0)

    def after_step(self, ctx: Context) -> None:
        for weight, mask, values in self._frozen:
            own_rows(weight)[0].masked_scatter_(mask, values)

    def report(self) -> dict[str, Any]:
        told = {"frozen_weights": self._count}
        return told if self.options.by == "magnitude" else {"tasks": self._seen.tasks, **told}

    def state_dict(self) -> State:
        masks = {_MASK + name: mask for name, mask in self._masks.items()}
        return {"stage": self._stage, **self._seen.state_dict(), **masks}

    def load_state_dict(self, state: State) -> None:
        self._stage = state.get("stage", 0)
        self._masks = {key.removeprefix(_MASK): value for key, value in state.items() if key.startswith(_MASK)}
        rest = {key: value for key, value in state.items() if key != "stage" and not key.startswith(_MASK)}
        self._seen.load_state_dict(rest)

    def _choose(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which entries of each weight are frozen: boolean, shaped as the weight, and sharded where it is."""
        known = weights if self.options.by == "magnitude" else self._seen.importances
        sizes = {name: known[name].detach() for name in weights if name in known}
        together = self.options.scope == "all"
        groups = [list(sizes.values())] if together and sizes else [[size] for size in sizes.values()]
        least = least_of_largest(groups, self.options.share)
        masks = {}
        for place, (name, tensor) in enumerate(sizes.items()):
            masks[name] = torch.zeros_like(tensor, dtype=torch.bool)
            size = own_rows(tensor)[0].abs().float()
            own_rows(masks[name])[0].copy_((size >= least[0 if together else place].to(size.device)) & (size > 0))
        return masks


class _Seen(MeasuredPull):
    """The importances; it never pulls."""

    def __init__(self, options: FreezeImportantOptions) -> None:
        super().__init__(NAME, strength=0.0, every=1, gamma=1.0, normalise=True)
        self.options = options

    def estimate(self, task: Task) -> Estimate:
        how = Estimate(self.options.samples, self.options.batch_size, method=NAME)
        if self.options.by == "fisher":
            return how
        loss = partial(squared_outputs, task, NAME)
        return Estimate(
            how.samples, how.batch_size, of="absolute", loss=loss, method=NAME, what="sensitivity of the outputs"
        )
