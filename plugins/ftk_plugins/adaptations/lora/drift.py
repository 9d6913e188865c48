"""The drift of a weight under low-rank adapters, and its chain rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ftk.parts import Drift


class LowRankDrift(Drift):
    """``Σ s·left[i:j] @ right`` over the layer's active adapters, in the layout that the weight is stored in.

    For a ``Linear`` weight ``(out, in)``, left is B and right is A; a ``Conv1D`` stores ``(in, out)``, and
    there left is Aᵀ and right Bᵀ. A start with BA ≠ 0 is an adapter of its own, frozen and of opposite sign,
    and so is subtracted by the sum.

    Where the base weight is sharded, ``left`` and ``right`` are whole in every process and its rows are not: the pull
    of one process's rows goes into ``pulls``, to be summed over the processes.

    Args:
        layer: PEFT's LoRA layer around the base layer.
        pulls: by parameter, what this process's rows have given so far; None where a pull goes to ``.grad``.
    """

    def __init__(self, layer: Any, pulls: dict[nn.Parameter, Tensor] | None = None) -> None:
        self._layer = layer
        self._pulls = pulls

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self._layer.get_base_layer().weight
        return weight

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        with torch.autocast(self.weight.device.type, enabled=False):
            total: Tensor | None = None
            for adapter in self._layer.active_adapters:
                left, right = self._factors(self._layer.lora_A[adapter].weight, self._layer.lora_B[adapter].weight)
                scaled = left[start:stop].float() * self._layer.scaling[adapter]  # the small factor, not the product
                total = scaled @ right.float() if total is None else total.addmm_(scaled, right.float())
        assert total is not None
        return total

    @torch.no_grad()
    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        with torch.autocast(self.weight.device.type, enabled=False):
            for adapter in self._layer.active_adapters:
                a, b = self._layer.lora_A[adapter].weight, self._layer.lora_B[adapter].weight
                if not a.requires_grad:
                    continue
                scale = self._layer.scaling[adapter]
                left, right = self._factors(a, b)
                left_grad, right_grad = self._factors(self._grad(a), self._grad(b))
                left_grad[start:stop].addmm_(gradient, right.mT, alpha=scale)
                right_grad.addmm_(left[start:stop].mT, gradient, alpha=scale)

    def _factors(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Left and right of the stored layout; views, so that adding to them adds to ``a`` and ``b``."""
        return (a.mT, b.mT) if self._layer.fan_in_fan_out else (b, a)

    def _grad(self, parameter: nn.Parameter) -> Tensor:
        if self._pulls is not None:
            if parameter not in self._pulls:
                self._pulls[parameter] = torch.zeros_like(parameter)
            return self._pulls[parameter]
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        return parameter.grad
