"""Which linear layers of a model get an adapter."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import Any, Literal

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftk import UserError, did_you_mean
from ftk_plugins.adaptations.named import without_numbers


def choose_targets(model: Any, targets: Literal["all-linear"] | tuple[str, ...]) -> dict[str, Any]:
    """The chosen layers (``Linear`` and GPT-2's ``Conv1D``) by name.

    ``all-linear`` leaves out the output layer and every layer whose weight is shared with another module.

    Raises:
        UserError: the model has adapters already; nothing matches a pattern; or a chosen weight is shared, so
            that an adapter would silently untie it, or quantized, so that it has no exact drift.
    """
    modules: list[tuple[str, Any]] = list(model.named_modules())
    if any(isinstance(module, BaseTunerLayer) for _, module in modules):
        raise UserError(
            "adaptation `lora`: the model already carries an adapter", "Start from the model with it merged."
        )
    linear = {name: module for name, module in modules if isinstance(module, nn.Linear | Conv1D)}
    uses = Counter(id(weight) for _, module in modules for weight in module.parameters(recurse=False))
    shared = {name for name, module in linear.items() if uses[id(module.weight)] > 1}
    if targets == "all-linear":
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        chosen = {name: m for name, m in linear.items() if m is not output and name not in shared}
        if not chosen:
            raise UserError(
                f"adaptation `lora`: {type(model).__name__} has no linear layer", "Use the adaptation `full`."
            )
    else:
        chosen = _matching(linear, targets)
    for name, module in chosen.items():
        if name in shared:
            raise UserError(
                f"adaptation.targets: {name} shares its weight with another layer, which would come untied",
                "Leave it out of `targets`, or use the adaptation `full`.",
            )
        if not module.weight.is_floating_point():
            raise UserError(
                f"adaptation `lora`: {name} is stored as {module.weight.dtype}",
                "Load the model without quantization.",
            )
    return chosen


def _matching(linear: dict[str, Any], patterns: tuple[str, ...]) -> dict[str, Any]:
    """The layers whose name, or the end of it from a dot on, matches one of the patterns."""
    matched = {pattern: {n for n in linear if _matches(n, pattern)} for pattern in patterns}
    for pattern, names in matched.items():
        if not names:
            valid = without_numbers(linear) if "." in pattern else {name.rpartition(".")[2] for name in linear}
            raise UserError(
                f"adaptation.targets: {pattern!r} matches no linear layer of the model",
                did_you_mean(pattern, valid),
            )
    return {name: linear[name] for name in linear if any(name in names for names in matched.values())}


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
