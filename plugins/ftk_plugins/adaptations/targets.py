"""Which linear layers of a model get an adapter, and which modules are trained whole beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftk import UserError, did_you_mean
from ftk_plugins.adaptations.named import without_numbers
from ftk_plugins.adaptations.quantized import is_quantized


def choose_targets(
    model: Any, method: str, targets: Literal["all-linear"] | tuple[str, ...], whole: Iterable[str] = ()
) -> dict[str, Any]:
    """The chosen layers (``Linear`` and GPT-2's ``Conv1D``) by name.

    ``all-linear`` leaves out the output layer, every layer whose weight is shared with another module, and those that
    are trained whole.

    Args:
        model: the plain model.
        method: the adaptation's name, for messages.
        targets: as a recipe says it.
        whole: the names of modules that :func:`choose_whole` chose.

    Raises:
        UserError: the model has adapters already; nothing matches a pattern; or a chosen weight is shared, so
            that an adapter would silently untie it, quantized, so that it has no exact drift, or trained whole.
    """
    modules: list[tuple[str, Any]] = list(model.named_modules())
    if any(isinstance(module, BaseTunerLayer) for _, module in modules):
        raise UserError(
            f"adaptation `{method}`: the model already carries an adapter", "Start from the model with it merged."
        )
    linear = {name: module for name, module in modules if isinstance(module, nn.Linear | Conv1D)}
    uses = Counter(id(weight) for _, module in modules for weight in module.parameters(recurse=False))
    shared = {name for name, module in linear.items() if uses[id(module.weight)] > 1}
    taken = {name for name in linear if _within(name, whole)}
    if targets == "all-linear":
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        left = {name: module for name, module in linear.items() if module is not output}
        chosen = {name: module for name, module in left.items() if name not in shared | taken}
        if not chosen:
            raise UserError(
                f"adaptation `{method}`: {type(model).__name__} has no linear layer", "Use the adaptation `full`."
            )
    else:
        chosen = matching(linear, targets, "targets", "linear layer")
    for name, module in chosen.items():
        if name in shared:
            raise UserError(
                f"adaptation.targets: {name} shares its weight with another layer, which would come untied",
                "Leave it out of `targets`, or use the adaptation `full`.",
            )
        if name in taken:
            raise UserError(
                f"adaptation.targets: {name} is trained whole by `modules_to_save`", "Leave it out of one of the two."
            )
        if not module.weight.is_floating_point() and not is_quantized(module):
            raise UserError(
                f"adaptation `{method}`: {name} is stored as {module.weight.dtype}",
                "Load the model without quantization.",
            )
    return chosen


def choose_whole(model: nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the modules with weights that match, without those within another of them.

    Raises:
        UserError: nothing matches a pattern.
    """
    modules = {name: m for name, m in model.named_modules() if name and next(m.parameters(), None) is not None}
    found = matching(modules, patterns, "modules_to_save", "module with weights")
    return tuple(name for name in found if not _within(name.rpartition(".")[0], found))


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def matching(modules: dict[str, Any], patterns: tuple[str, ...], option: str, what: str) -> dict[str, Any]:
    """The modules whose name, or the end of it from a dot on, matches one of the patterns.

    Raises:
        UserError: one of them matches nothing; the message names ``option``, and says ``what`` it should match.
    """
    matched = {pattern: {n for n in modules if _matches(n, pattern)} for pattern in patterns}
    for pattern, names in matched.items():
        if not names:
            valid = without_numbers(modules) if "." in pattern else {name.rpartition(".")[2] for name in modules}
            raise UserError(
                f"adaptation.{option}: {pattern!r} matches no {what} of the model",
                did_you_mean(pattern, valid),
            )
    return {name: modules[name] for name in modules if any(name in names for names in matched.values())}


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
