"""Bottleneck adapters on a transformers model; an exported folder has this file, which loads them without ftk.

Where this file can be imported:

    from load_adapter import load_adapter

    model = load_adapter(AutoModelForCausalLM.from_pretrained("path/to/model"), "path/to/model/adapter")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

MODULE = "bottleneck_adapters"
"""The name under which a model holds its adapters."""

SETTINGS, TENSORS = "bottleneck.json", "bottleneck.safetensors"
"""The files of an exported folder."""

WHOLE = "whole."
"""How the names of tensors begin that take a weight's place in the model."""

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Bottleneck(nn.Module):
    """``x + scale · up(activation(down(x)))``, in float32; it starts as the identity.

    Args:
        width: of what comes in and goes out.
        size: of the bottleneck.
        activation: one of :data:`ACTIVATIONS`.
        dropout: share of the bottleneck's values that are zeroed in training.
        scale: factor of what is added.
    """

    def __init__(self, width: int, size: int, activation: str, dropout: float, scale: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation, self.dropout, self.scale = ACTIVATIONS[activation](), nn.Dropout(dropout), scale
        nn.init.normal_(self.down.weight, std=1e-2)
        for start in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    def forward(self, states: Tensor) -> Tensor:
        added: Tensor = self.up(self.dropout(self.activation(self.down(states.to(self.down.weight.dtype)))))
        return states + (self.scale * added).to(states.dtype)


def place(
    model: Any, adapters: Mapping[str, Bottleneck], is_active: Callable[[], bool] = lambda: True
) -> list[RemovableHandle]:
    """Put adapters behind the modules of these names; the model holds them as ``bottleneck_adapters``."""
    model.add_module(MODULE, nn.ModuleDict({key_of(name): adapter for name, adapter in adapters.items()}))

    def behind(adapter: Bottleneck) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, args, output: adapter(output) if is_active() else output

    return [model.get_submodule(name).register_forward_hook(behind(adapter)) for name, adapter in adapters.items()]


def key_of(name: str) -> str:
    """A module's name as the key of a ``ModuleDict``, which may hold no dots."""
    return name.replace(".", "/")


def load_adapter(model: Any, folder: str | Path) -> Any:
    """Put the adapters of an exported folder on the model that they were trained from, and return it.

    Raises:
        KeyError, RuntimeError: the adapters belong to another model.
    """
    settings = json.loads((Path(folder) / SETTINGS).read_text(encoding="utf-8"))
    tensors = load_file(Path(folder) / TENSORS)
    shape = {name: settings[name] for name in ("size", "activation", "dropout", "scale")}
    device = next(model.parameters()).device
    adapters = {name: Bottleneck(width, **shape).to(device) for name, width in settings["places"].items()}
    place(model, adapters)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(WHOLE)}
    model.get_submodule(MODULE).load_state_dict(own)
    model.get_submodule(MODULE).train(model.training)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.startswith(WHOLE):
                model.get_parameter(name.removeprefix(WHOLE)).copy_(tensor)
    return model
