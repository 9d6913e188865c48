"""What a mitigation has kept of weights, by the names and in the sizes that they have under a recipe that has grown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ftk.parts.context import Context
from ftk.parts.mitigation import Fill
from ftk.parts.part import State


def grown(state: State, fills: Mapping[str, Fill], ctx: Context) -> State:
    """The state with the rows that weights have gained since it was made; the same where nothing has changed.

    Args:
        state: of a mitigation.
        fills: its :attr:`ftk.parts.Mitigation.of_weights`.
        ctx: of the stage that goes on with it; its adaptation is attached, and knows the weights that can move.
    """
    if not any(any(_matches(key, fills)) for key in state):
        return state
    assert ctx.adaptation is not None
    weights = {name: drift.weight for name, drift in ctx.adaptation.drift().items()}
    first = ctx.earlier[0].objective.head if ctx.earlier else ctx.objective.head
    if ctx.heads is not None and (names := ctx.heads.former_names(weights, first)):
        state = {
            _renamed(key, names) if any(_matches(key, fills)) else key: _renamed(value, names)
            for key, value in state.items()
        }
    there = {ctx.common_name(name): weight for name, weight in weights.items()}
    larger: dict[str, Any] = {}
    for key, name, fill in [match for each in state for match in _matches(each, fills)]:
        if name in there and (more := _larger(state[key], there[name], fill)) is not None:
            larger[key] = more
    return {**state, **larger}


def _matches(key: str, fills: Mapping[str, Fill]) -> Iterator[tuple[str, str, Fill]]:
    """The key, the name of a weight that it may hold, and what fills up its rows."""
    for pattern, fill in fills.items():
        before, _, after = pattern.partition("*")
        if key.startswith(before) and key.endswith(after):
            yield key, key[len(before) : len(key) - len(after)], fill


def _larger(kept: Tensor, weight: Tensor, fill: Fill) -> Tensor | None:
    """With the weight's number of rows; None where it has them, or has no rows of the weight."""
    rows, more = len(kept) if kept.ndim else 0, len(weight) if weight.ndim else 0
    if fill == "none" or rows >= more or not rows:
        return None
    if isinstance(kept, DTensor):  # each process has other rows of the larger one
        full = weight.full_tensor() if isinstance(weight, DTensor) else weight
        whole = _larger(kept.full_tensor(), full, fill)
        return None if whole is None else distribute_tensor(whole, kept.device_mesh, kept.placements)
    if fill == "factor":
        return torch.nn.functional.pad(kept, [0, more - rows] * kept.ndim)
    if kept.shape[1:] != weight.shape[1:]:
        return None
    new = weight.detach()[rows:].to(kept) if fill == "weights" else kept.new_zeros((more - rows, *kept.shape[1:]))
    return torch.cat([kept, new])


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A JSON value with the new names of weights in its texts; tensors stay."""
    if isinstance(value, str):
        return "/".join(names.get(part, part) for part in value.split("/"))
    if isinstance(value, dict):
        return {_renamed(key, names): _renamed(its, names) for key, its in value.items()}
    return [_renamed(its, names) for its in value] if isinstance(value, list) else value
