"""Layers that multiply what they are given, and which side of their weight the inputs are on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def kind_of(module: nn.Module) -> str:
    """``linear`` for a weight ``(out, in)``, ``transposed`` for ``(in, out)``, ``conv``; empty where it is none."""
    if isinstance(module, nn.Linear):  # those of few bits have a forward pass of their own, and multiply all the same
        return "linear"
    if isinstance(module, Conv1D):
        return "transposed"
    plain = isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
    return "conv" if plain and not isinstance(module.padding, str) else ""


def is_table(module: nn.Module) -> bool:
    """Whether it looks rows of its weight up."""
    return isinstance(module, nn.Embedding)


def owners(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[tuple[nn.Module, str]]:
    """The layers of these kinds, with the name of the weight of each; a weight that is tied has several."""
    names = {id(weight): name for name, weight in weights.items()}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and id(weight) in names and (is_table(module) or kind_of(module)):
            yield module, names[id(weight)]


def layers_of(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Of each weight that multiplies the inputs of its layer, the kind of that."""
    return {name: kind_of(module) for module, name in owners(model, weights) if not is_table(module)}


def inner(kind: str, left: Tensor, right: Tensor) -> Tensor:
    """Of two factors of such a weight the one on the side of the inputs, ``(rank, inputs)``: LoRA's A; a view."""
    return left.mT if kind == "transposed" else right


def outer(kind: str, left: Tensor, right: Tensor) -> Tensor:
    """The other one, ``(outputs, rank)``: LoRA's B."""
    return right.mT if kind == "transposed" else left
