"""MoFO: of each weight, only the entries with the largest momentum move in a step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ftk.parts import Context, Gradients, Mitigation
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
        self._before = {
            name: kept.copy_(parameter) if (kept := self._before.get(name)) is not None else parameter.detach().clone()
            for name, parameter in self._parameters.items()
        }

    def after_step(self, ctx: Context) -> None:
        for name, parameter in self._parameters.items():
            momentum = ctx.momentum(parameter)
            if momentum is not None:
                size = momentum.abs().float()
                still = size < least_of_largest(size, self.options.share)
                parameter.copy_(torch.where(still, self._before[name], parameter))


def least_of_largest(values: Tensor, share: float) -> Tensor:
    """The smallest of the ``ceil(share · n)`` largest of ``n`` values: a scalar."""
    count = math.ceil(share * values.numel() - 1e-9)  # a share of 0.15 is a little more than that in binary
    return values.flatten().kthvalue(values.numel() - max(1, count) + 1).values
