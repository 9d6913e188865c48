"""The drift of a weight under low-rank adapters, and its chain rule."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ftk.parts import Drift, Product


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
        # Found once: a step asks for hundreds of small products, of which the looking up would be a fifth.
        self._adapters = [
            (layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
            for name in layer.active_adapters
        ]

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self._layer.get_base_layer().weight
        return weight

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        total: Tensor | None = None
        with _float32(self._adapters[0][0]):
            for a, b, scale in self._adapters:
                left, right = self._factors(a, b)
                product = _product(left[start:stop].float() * scale, right.float())  # scaled where it is small
                total = product if total is None else total.add_(product)
        assert total is not None
        return total

    @torch.no_grad()
    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        with _float32(gradient):
            for a, b, scale in self._adapters:
                if a.requires_grad:
                    left, right = self._factors(a, b)
                    left_grad, right_grad = self._factors(self._grad(a), self._grad(b))
                    _add_pulls(left_grad[start:stop], right_grad, left[start:stop], right, gradient, scale)

    def products(self) -> Sequence[Product]:
        found = []
        for a, b, scale in self._adapters:
            grads = self._factors(self._grad(a), self._grad(b)) if a.requires_grad else (None, None)
            left, right = self._factors(a.detach(), b.detach())
            found.append(Product(left, right, scale, *grads))
        return found

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


def _float32(tensor: Tensor) -> AbstractContextManager[Any]:
    """Products as the tensors are, whatever the caller's precision."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``."""
    blocks = _blocks(left)
    if blocks == 1:
        return left @ right
    each = right.expand(blocks, *right.shape)
    return torch.bmm(left.view(blocks, -1, left.shape[1]), each).view(len(left), -1)


def _add_pulls(
    left_grad: Tensor, right_grad: Tensor, left: Tensor, right: Tensor, gradient: Tensor, scale: float
) -> None:
    """Add the gradients of both factors of ``scale · left @ right``, given that of the product."""
    blocks = _blocks(gradient)
    if blocks == 1:
        left_grad.addmm_(gradient, right.mT, alpha=scale)
        right_grad.addmm_(left.mT, gradient, alpha=scale)
        return
    rank, columns = right.shape
    gradient = gradient.view(blocks, -1, columns)
    # The small factors are turned in memory: a product that reads them sideways takes longer.
    across = right.mT.contiguous().expand(blocks, columns, rank)
    down = left.mT.contiguous().view(rank, blocks, -1).transpose(0, 1)
    left_grad.view(blocks, -1, rank).baddbmm_(gradient, across, alpha=scale)
    right_grad.add_(torch.bmm(down, gradient).sum(0), alpha=scale)


def _blocks(rows: Tensor) -> int:
    """How many blocks of even size to cut rows into: one for each CPU thread; 1 where that does not come out even.

    A product is then as many small ones, each made by one thread alone, which with so small a rank takes up to a third
    less time. An accelerator is better served by few kernels.
    """
    threads = torch.get_num_threads() if rows.device.type == "cpu" else 1
    return threads if rows.shape[0] % threads == 0 else 1
