"""MoFO: of each weight, only the entries with the largest momentum move in a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ftk.parts import Context, Gradients, Mitigation, own_rows
from ftk_plugins.mitigations.largest import least_of_largest
from ftk_plugins.mitigations.momentum_filter.options import MomentumFilterOptions


class MomentumFilter(Mitigation):
    """Algorithm 1 of Chen et al. 2024, with each weight as a partition, around the optimizer's own step.

    The optimizer updates its state by the whole gradient and moves all entries; those whose momentum is not among the
    largest are then put back to the bit, so that neither gradient nor weight decay has moved them.
    """

    moves_weights = True

    def __init__(self, options: MomentumFilterOptions) -> None:
        self.options = options
        self._before: dict[str, Tensor] = {}
        self._parameters: Mapping[str, nn.Parameter] = {}

    def read_gradients(self, gradients: Gradients, ctx: Context) -> None:
        self._parameters = gradients.parameters()
        now = {name: own_rows(parameter)[0].detach() for name, parameter in self._parameters.items()}
        self._before = {
            name: kept.copy_(own) if (kept := self._before.get(name)) is not None else own.clone()
            for name, own in now.items()
        }

    def after_step(self, ctx: Context) -> None:
        found = {name: ctx.momentum(parameter) for name, parameter in self._parameters.items()}
        momenta = {name: momentum for name, momentum in found.items() if momentum is not None}
        least = least_of_largest([[momentum] for momentum in momenta.values()], self.options.share)
        for (name, momentum), size in zip(momenta.items(), least, strict=True):
            own = own_rows(self._parameters[name])[0]
            still = own_rows(momentum)[0].abs().float() < size.to(own.device)
            own.copy_(torch.where(still, self._before[name], own))
