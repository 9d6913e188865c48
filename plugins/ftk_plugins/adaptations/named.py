"""What adaptation methods share: matching weights by name and taking trained tensors back by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftk.parts import State, own_rows


def without_numbers(names: Iterable[str]) -> set[str]:
    """The names with every layer number replaced by ``*``: short enough to show, and valid as patterns."""
    return {re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names}


def take_back(own: Mapping[str, Tensor], state: State) -> None:
    """Copy the tensors of ``state`` into ``own``, in place, bit for bit.

    Raises:
        ValueError: a name is missing or unknown, or a shape differs; nothing is copied then.
    """
    complaints = []
    if missing := sorted(own.keys() - state.keys()):
        complaints.append(f"missing: {', '.join(missing)}")
    if unexpected := sorted(state.keys() - own.keys()):
        complaints.append(f"unexpected: {', '.join(unexpected)}")
    for name in sorted(own.keys() & state.keys()):
        if own[name].shape != state[name].shape:
            complaints.append(f"{name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}")
    if complaints:
        raise ValueError(f"the saved weights do not fit this adaptation; {'; '.join(complaints)}")
    with torch.no_grad():
        for name, tensor in own.items():
            own_rows(tensor)[0].copy_(own_rows(state[name])[0])


def remember_requires_grad(model: nn.Module) -> Callable[[], None]:
    """Note which parameters require gradients; calling the result makes it so again."""
    flags: list[tuple[Any, bool]] = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore() -> None:
        for parameter, required in flags:
            parameter.requires_grad_(required)

    return restore
