"""What kind of weight each parameter of a model is, told by the modules that own it and by its name."""

from __future__ import annotations

from typing import Literal

from torch import nn

WeightKind = Literal["matrix", "head", "embedding", "norm", "bias"]
"""``matrix``: of a hidden layer (a convolution's too); ``head``: of what stands behind the model's trunk."""

_TABLES = ("embed", "token", "position")
"""Words in the names of tables that a model holds itself, as ``position_embeddings`` and ``cls_token`` of a ViT."""


def weight_kinds(model: nn.Module) -> dict[nn.Parameter, WeightKind]:
    """The kind of each parameter.

    A weight that several modules share is of the first of these kinds that one of them makes it: ``embedding``,
    ``norm``, ``bias``, ``head``, ``matrix``; an output layer tied to the embedding is an embedding. A vector
    that is nothing else counts as a ``bias``.

    Args:
        model: with or without an adaptation attached; the matrices of an adapter are of the kind ``matrix``.
    """
    trunk = {id(parameter) for parameter in getattr(model, "base_model", model).parameters()}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is not None:  # some models, as T5, have no trunk apart from their output layer
        trunk -= {id(parameter) for parameter in output.parameters()}
    order: tuple[WeightKind, ...] = ("embedding", "norm", "bias", "head", "matrix")
    kinds: dict[nn.Parameter, WeightKind] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                found = _kind(module, name, parameter, id(parameter) in trunk)
                kinds[parameter] = min(kinds.get(parameter, found), found, key=order.index)
    return kinds


def _kind(module: nn.Module, name: str, parameter: nn.Parameter, in_trunk: bool) -> WeightKind:
    owner = type(module).__name__
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) or any(word in name for word in _TABLES):
        return "embedding"
    if "norm" in owner.lower():
        return "norm"
    if name.endswith("bias") or parameter.ndim < 2:
        return "bias"
    return "matrix" if in_trunk else "head"
