"""What adaptation methods share: matching weights by name and taking trained tensors back by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ftk import UserError, did_you_mean
from ftk.parts import State, own_rows


def without_numbers(names: Iterable[str]) -> set[str]:
    """The names with every layer number replaced by ``*``: short enough to show, and valid as patterns."""
    return {re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names}


def aliases_of(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Each weight of a model with all of its names; a tied one has several."""
    aliases: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(parameter, []).append(name)
    return aliases


def matching(aliases: Mapping[nn.Parameter, Sequence[str]], option: str, patterns: Sequence[str]) -> set[nn.Parameter]:
    """The weights of which a name matches one of the patterns.

    Raises:
        UserError: a pattern of this option matches no weight.
    """
    found: set[nn.Parameter] = set()
    for pattern in patterns:
        matched = {weight for weight, names in aliases.items() if any(fnmatchcase(name, pattern) for name in names)}
        if not matched:
            every_name = [name for names in aliases.values() for name in names]
            raise UserError(
                f"adaptation.{option}: {pattern!r} matches no weight of the model",
                did_you_mean(pattern, without_numbers(every_name)),
            )
        found |= matched
    return found


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
