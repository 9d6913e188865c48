"""How each kind of layer splits its weight gradient into the samples of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, slots=True)
class Outer:
    """Sample ``b``'s gradient is ``left[b].T @ right[b]``: ``(batch, positions, rows)``, ``(…, columns)``.

    Of a weight with more than two dimensions, all but the first are the columns.
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True, slots=True)
class Scatter:
    """Sample ``b``'s gradient is ``values[b, t]`` added to row ``indices[b, t]``, for each position ``t``."""

    indices: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class Dense:
    """Sample ``b``'s gradient is ``values[b]``; for small weights, of which there may be one per sample."""

    values: Tensor


Part = Outer | Scatter | Dense
"""What one call of one layer adds to every sample's gradient of one weight."""

Rule = Callable[[Any, Tensor, Tensor], Part]
"""From the layer, its input and the gradient of its output ``(batch, …)`` to the part."""


def rule_for(module: nn.Module, name: str) -> Rule | None:
    """The rule for the parameter ``name`` of ``module``; None where its forward pass is not known here."""
    if isinstance(module, nn.Conv2d) and not _plain(module):
        return None
    return _RULES.get(type(module).forward, {}).get(name)


def _plain(module: nn.Conv2d) -> bool:
    """Whether each output of a convolution sees all inputs, and what lies around an image is zero."""
    return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def is_elementwise(module: nn.Module) -> bool:
    """Whether this may be a layer that multiplies by a 1-D weight along the last dimension, as RMSNorm does.

    Only its shape is looked at; whether the layer works with one copy of the weight for each sample is tried.
    """
    parameters = [p for p in module.parameters(recurse=True) if p is not None]
    return [p.ndim for p in parameters] == [1] and "weight" in module._parameters


def _positions(tensor: Tensor) -> Tensor:
    """``(batch, …, channels)`` as ``(batch, positions, channels)``, in float32."""
    return tensor.float().reshape(tensor.shape[0], -1, tensor.shape[-1])


def _linear_weight(module: nn.Linear, inputs: Tensor, gradient: Tensor) -> Part:
    return Outer(_positions(gradient), _positions(inputs))


def _transposed_weight(module: nn.Module, inputs: Tensor, gradient: Tensor) -> Part:
    return Outer(_positions(inputs), _positions(gradient))


def _added(module: nn.Module, inputs: Tensor, gradient: Tensor) -> Part:
    return Dense(_positions(gradient).sum(1))


def _embedded(module: nn.Embedding, inputs: Tensor, gradient: Tensor) -> Part:
    values = _positions(gradient)
    indices = inputs.reshape(values.shape[0], -1)
    if module.padding_idx is not None:
        values = values.masked_fill((indices == module.padding_idx)[..., None], 0)
    return Scatter(indices, values)


def _convolved(module: nn.Conv2d, inputs: Tensor, gradient: Tensor) -> Part:
    assert not isinstance(module.padding, str)  # `_plain` has seen to it
    patches = F.unfold(inputs.float(), module.kernel_size, module.dilation, module.padding, module.stride)
    return Outer(gradient.float().flatten(2).mT, patches.mT)


def _added_channels(module: nn.Conv2d, inputs: Tensor, gradient: Tensor) -> Part:
    return Dense(gradient.float().flatten(2).sum(2))


def _summed(per_position: Tensor, shape: tuple[int, ...]) -> Part:
    return Dense(per_position.float().reshape(per_position.shape[0], -1, *shape).sum(1))


def _layer_norm_weight(module: nn.LayerNorm, inputs: Tensor, gradient: Tensor) -> Part:
    return _summed(gradient * F.layer_norm(inputs, module.normalized_shape, eps=module.eps), module.normalized_shape)


def _layer_norm_bias(module: nn.LayerNorm, inputs: Tensor, gradient: Tensor) -> Part:
    return _summed(gradient, module.normalized_shape)


def _rms_norm_weight(module: nn.RMSNorm, inputs: Tensor, gradient: Tensor) -> Part:
    shape = tuple(module.normalized_shape)
    return _summed(gradient * F.rms_norm(inputs, list(shape), eps=module.eps), shape)


_RULES: Mapping[Any, Mapping[str, Rule]] = {
    nn.Linear.forward: {"weight": _linear_weight, "bias": _added},
    Conv1D.forward: {"weight": _transposed_weight, "bias": _added},
    nn.Conv2d.forward: {"weight": _convolved, "bias": _added_channels},
    nn.Embedding.forward: {"weight": _embedded},
    nn.LayerNorm.forward: {"weight": _layer_norm_weight, "bias": _layer_norm_bias},
    nn.RMSNorm.forward: {"weight": _rms_norm_weight},
}
"""By the forward pass itself, so that a subclass with its own is not taken for its base class."""
