"""Adapters of PEFT as changes of a base's weights: which factors move which weight; imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ftk.errors import Problem
from ftk.merging.folders import Folder, Stored

PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class LowRank:
    """A weight that an adapter moves: ``base + scale·B·A``, or its transpose where the base stores ``(in, out)``.

    Attributes:
        base: the weight that it belongs on.
        a: ``(rank, in)``.
        b: ``(out, rank)``.
        scale: of the product.
        transposed: whether the base stores ``(in, out)``.
    """

    base: Stored
    a: Stored
    b: Stored
    scale: float
    transposed: bool


def adapted(adapter: Folder, base: Folder) -> tuple[dict[str, Stored | LowRank], list[Problem]]:
    """The weights of the base as they are with the adapter on it; by name, and those alone that it changes."""
    problems = list(_unfit(adapter))
    factors: dict[str, dict[str, Stored]] = {}
    found: dict[str, Stored | LowRank] = {}
    for key, stored in adapter.tensors.items():
        name = key.removeprefix(PREFIX)
        if (factor := _FACTOR.fullmatch(name)) is not None:
            factors.setdefault(factor[1], {})[factor[2]] = stored
        elif name in base.tensors and stored.shape == base.tensors[name].shape:
            found[name] = stored  # of `modules_to_save`: trained whole
        else:
            what = "has another shape than in the base" if name in base.tensors else "is nothing that the base has"
            problems.append(Problem(adapter.given, f"{key} {what}", "only LoRA on linear layers can be merged"))
    for module, pair in factors.items():
        weight = base.tensors.get(f"{module}.weight")
        if pair.keys() != {"A", "B"} or weight is None:
            lacks = f"lacks {module}.weight" if weight is None else "is whole"
            problems.append(
                Problem(adapter.given, f"it changes {module}, of which the base {lacks}, and has {'/'.join(pair)}")
            )
            continue
        a, b = pair["A"], pair["B"]
        transposed = bool(adapter.config.get("fan_in_fan_out"))
        shape = (a.shape[-1], b.shape[0]) if transposed else (b.shape[0], a.shape[-1])
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or weight.shape != shape:
            told = f"{module}: factors {_told(b)} and {_told(a)} give no weight {_told(weight)}"
            problems.append(Problem(adapter.given, told, "is it an adapter of this base?"))
            continue
        found[f"{module}.weight"] = LowRank(weight, a, b, _scale(adapter.config, module, a.shape[0]), transposed)
    return found, problems


def _unfit(adapter: Folder) -> Iterator[Problem]:
    """Why an adapter is no sum of low-rank changes."""
    config = adapter.config
    if config.get("peft_type") != "LORA":
        yield Problem(
            adapter.given, f"its method is {config.get('peft_type')}", "only LoRA is a product that can be merged"
        )
    for key, value in (
        ("use_dora", False),
        ("use_qalora", False),
        ("lora_bias", False),
        ("alora_invocation_tokens", None),
    ):
        if config.get(key, value) not in (value, None):
            hint = "merge it into its base with PEFT first, and name the models"
            yield Problem(adapter.given, f"{key} = {config[key]}: what it changes is no product of two factors", hint)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = float(_by_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: a pattern is the end of a module's name, from a dot on."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _told(stored: Stored) -> str:
    return "×".join(map(str, stored.shape))
