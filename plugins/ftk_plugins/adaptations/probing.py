"""The weight that a wrapped layer computes with, found by asking the layer itself: for any method of PEFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from ftk.parts import evaluated

ROWS = 4
"""How many random inputs a layer is tried with."""


class _Bare(nn.Module):
    """The layer without the hooks that stand on it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Any:
        return self.layer.forward(inputs)


def answer(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What the layer computes from ``inputs (n, in)``, in float32 and ``eval`` mode: ``(n, out)``, with a graph."""
    tensors = (*layer.named_parameters(), *layer.named_buffers())
    wide = {f"layer.{name}": t.float() for name, t in tensors if t.is_floating_point() and t.dtype != torch.float32}
    with evaluated(layer):
        outputs: Tensor = functional_call(_Bare(layer), wide, (inputs,))
    return outputs


def width(linear: Any) -> int:
    """How many numbers a plain linear layer reads."""
    return int(linear.weight.shape[0] if isinstance(linear, Conv1D) else linear.in_features)


def probed_weight(layer: Any) -> Tensor:
    """The answers to unit vectors less that to zero, in the layout of the base weight, with a graph."""
    size, weight = width(layer.get_base_layer()), layer.get_base_layer().weight
    units = torch.cat([weight.new_zeros(1, size, dtype=torch.float32), torch.eye(size, device=weight.device)])
    answers = answer(layer, units)
    columns = answers[1:] - answers[:1]
    return columns if isinstance(layer.get_base_layer(), Conv1D) else columns.mT


def probed_bias(layer: Any) -> Tensor:
    """The answer to zero."""
    return answer(
        layer, layer.get_base_layer().weight.new_zeros(1, width(layer.get_base_layer()), dtype=torch.float32)
    )[0]


def added_weight(layer: Any, adapter: str) -> Tensor:
    """The base weight and what PEFT says that the adapter adds to it, with a graph."""
    total: Tensor = layer.get_base_layer().weight.float() + layer.get_delta_weight(adapter)
    return total


@dataclass(frozen=True)
class Findings:
    """What trying a layer showed, with its parameters moved.

    Attributes:
        affine: its output is an affine function of its input, so that there is one weight that it computes with.
        moves_weight: that weight is not the base layer's.
        moves_bias: what it adds to every output is not the base layer's bias.
        adds: :func:`added_weight` is that weight, and has its derivatives: cheaper than asking the layer.
    """

    affine: bool
    moves_weight: bool
    moves_bias: bool
    adds: bool


def try_layer(layer: Any, adapter: str, trained: Sequence[nn.Parameter]) -> Findings:
    """Try a layer on random inputs, with ``trained`` moved at random; they are as before afterwards."""
    generator = torch.Generator().manual_seed(0)
    weight = layer.get_base_layer().weight

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(weight.device)

    with _moved(trained, draw), torch.enable_grad():
        inputs = draw(ROWS, width(layer.get_base_layer()))
        zero = torch.zeros_like(inputs[:1])
        bias = answer(layer, zero)
        linear = answer(layer, inputs) - bias
        both = answer(layer, inputs[:1] + inputs[1:2]) - bias
        affine = _near(both, linear[:1] + linear[1:2])
        plain = inputs @ (weight if isinstance(layer.get_base_layer(), Conv1D) else weight.mT).float()
        base = layer.get_base_layer().bias
        moves_bias = not _near(bias[0], torch.zeros_like(bias[0]) if base is None else base.float())
        by_delta = _by_delta(layer, adapter, inputs)
        slopes = draw(*linear.shape)
        adds = by_delta is not None and _near(by_delta, linear) and _same_slopes(by_delta, linear, slopes, trained)
    return Findings(affine, not _near(linear, plain), moves_bias, adds)


def _by_delta(layer: Any, adapter: str, inputs: Tensor) -> Tensor | None:
    """What the layer would compute if PEFT's delta were added to its base weight; None if it gives none."""
    try:
        weight = added_weight(layer, adapter)
        return inputs @ (weight if isinstance(layer.get_base_layer(), Conv1D) else weight.mT)
    except Exception:  # whatever a method without a delta, or with one of another shape, does
        return None


def _same_slopes(one: Tensor, other: Tensor, slopes: Tensor, trained: Sequence[nn.Parameter]) -> bool:
    if not (one.requires_grad and other.requires_grad):
        return False
    first, second = (torch.autograd.grad(each, trained, slopes, allow_unused=True) for each in (one, other))
    return all((a is None) == (b is None) and (a is None or _near(a, b)) for a, b in zip(first, second, strict=True))


def _near(one: Tensor, other: Tensor) -> bool:
    size = float(other.detach().abs().max()) + float(one.detach().abs().max())
    return float((one - other).detach().abs().max()) <= 1e-4 * size + 1e-6


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], draw: Callable[..., Tensor]) -> Iterator[None]:
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.1 * draw(*parameter.shape))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
