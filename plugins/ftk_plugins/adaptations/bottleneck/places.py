"""Where in a transformer's blocks bottleneck adapters stand: behind what writes back into the residual stream."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from ftk import UserError
from ftk_plugins.adaptations.blocks import stacks_of
from ftk_plugins.adaptations.targets import matching

ATTENTION = ("o_proj", "out_proj", "c_proj", "dense", "o", "out_lin", "wo")
"""How models call the last projection of an attention."""

MLP = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "wo", "w2", "lin2", "ffn_output")
"""How they call that of an MLP; BERT's is ``output.dense``."""


def places_of(
    model: Any, style: Literal["houlsby", "pfeiffer"], targets: tuple[str, ...] | None
) -> dict[str, nn.Module]:
    """The linear layers behind which adapters stand, by name: before dropout, norm and the sum with the residual.

    Raises:
        UserError: a pattern matches nothing, or the layers that ``style`` means are not found in the model's blocks.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    if targets is not None:
        return matching(linear, targets, "targets", "linear layer")
    inside = {
        name: name.removeprefix(f"{stack}.").partition(".")[2]
        for stack in stacks_of(model)
        for name in linear
        if name.startswith(f"{stack}.")
    }
    wanted = {"attention": _is_attention, "MLP": _is_mlp}
    if style == "pfeiffer":
        del wanted["attention"]
    found: set[str] = set()
    for what, is_one in wanted.items():
        ones = {name for name, path in inside.items() if is_one(path)}
        if not ones:
            raise UserError(
                f"adaptation `bottleneck`: the blocks of a {type(model).__name__} have no {what} with an output layer "
                "of a known name",
                "Name the linear layers behind which adapters should stand in `targets`.",
            )
        found |= ones
    return {name: module for name, module in linear.items() if name in found}


def width_of(layer: Any) -> int:
    """How wide a linear layer's output is."""
    width: int = layer.nf if isinstance(layer, Conv1D) else layer.out_features
    return width


def _is_attention(path: str) -> bool:
    owner, _, last = path.rpartition(".")
    return "att" in owner.lower() and last in ATTENTION


def _is_mlp(path: str) -> bool:
    if "att" in path.lower():
        return False
    owner, _, last = path.rpartition(".")
    return last in MLP or (last == "dense" and owner.rpartition(".")[2] == "output")
