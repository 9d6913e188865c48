"""Layers whose weights bitsandbytes holds in few bits: telling them apart, and making them plain again."""

from __future__ import annotations

from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

LAYERS = ("Linear4bit", "Linear8bitLt")
"""The classes of such layers, by name: the package that has them need not be installed."""


def is_quantized(layer: nn.Module) -> bool:
    """Whether the weight of this layer is held in few bits."""
    kind = type(layer)
    return kind.__name__ in LAYERS and kind.__module__.partition(".")[0] == "bitsandbytes"


def is_in_8_bits(layer: nn.Module) -> bool:
    """Whether the weight of this layer is held in 8 bits."""
    return is_quantized(layer) and type(layer).__name__ == "Linear8bitLt"


def plain_weight(layer: Any) -> Tensor:
    """The weight with which a layer computes, ``(out, in)`` in float32 where it is held in few bits, else its own."""
    weight: Tensor = layer.weight
    return dequantize_module_weight(layer).detach().float() if is_quantized(layer) else weight


def plain_layer(layer: Any, dtype: torch.dtype) -> nn.Linear:
    """A plain layer in ``dtype`` with the weight that a quantized one computes with."""
    weight = plain_weight(layer)
    with torch.device("meta"):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if layer.bias is not None:
        plain.bias = layer.bias
    plain.train(layer.training)
    return plain


def make_plain(model: Any) -> None:
    """Put plain layers in the place of all quantized ones, one at a time, and take the mark of them off the model."""
    for name, module in list(model.named_modules()):
        if is_quantized(module):
            model.set_submodule(name, plain_layer(module, model.dtype))
    for mark in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if mark in model.__dict__:
            delattr(model, mark)
    if getattr(model, "is_quantized", False):
        model.is_quantized = False
        del model.config.quantization_config
