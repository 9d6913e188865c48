"""Freezes, entry by entry, what matters most to what was learned before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ftk.parts import Context, Gradients, Mitigation, State, Task
from ftk_plugins.mitigations.ewc.fisher import Estimate
from ftk_plugins.mitigations.freeze_important.options import FreezeImportantOptions
from ftk_plugins.mitigations.mas.mas import squared_outputs
from ftk_plugins.mitigations.measured import MeasuredPull
from ftk_plugins.mitigations.momentum_filter.momentum_filter import least_of_largest

_MASK = "mask/"
NAME = "freeze_important"


class FreezeImportant(Mitigation):
    """Takes the frozen entries out of every gradient, and puts them back after every step.

    What matters is summed over the tasks remembered, each scaled to mean 1. Entries of no importance, as those of
    tokens that no row has, are never frozen. Which are is decided when a stage begins, and is part of the state, with
    the importances.
    """

    moves_weights = True

    def __init__(self, options: FreezeImportantOptions) -> None:
        self.options = options
        self._seen = _Seen(options)
        self._stage = 0
        self._masks: dict[str, Tensor] = {}
        self._frozen: list[tuple[Tensor, Tensor, Tensor]] = []

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
                mask = self._masks[name] = self._masks[name].to(weight.device)
                self._frozen.append((weight, mask, weight.detach()[mask]))

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        for weight, mask, _ in self._frozen:
            if weight.grad is not None:
                weight.grad.masked_fill_(mask, 0)

    def after_step(self, ctx: Context) -> None:
        for weight, mask, values in self._frozen:
            weight.masked_scatter_(mask, values)

    def report(self) -> dict[str, Any]:
        told = {"frozen_weights": sum(len(values) for _, _, values in self._frozen)}
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
        """Which entries of each weight are frozen: boolean, shaped as the weight."""
        if self.options.by == "magnitude":
            sizes = {name: weight.detach().abs().float() for name, weight in weights.items()}
        else:
            sizes = {name: self._seen.importances[name] for name in weights if name in self._seen.importances}
        if not sizes:
            return {}
        if self.options.scope == "tensor":
            least = {name: least_of_largest(size, self.options.share) for name, size in sizes.items()}
        else:
            whole = torch.cat([size.flatten().cpu() for size in sizes.values()])
            least = dict.fromkeys(sizes, least_of_largest(whole, self.options.share))
        return {name: (size >= least[name].to(size.device)) & (size > 0) for name, size in sizes.items()}


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
