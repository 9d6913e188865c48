"""The options of the methods that PEFT has beside those with a variant of their own."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from ftk_plugins.adaptations.target_options import TargetOptions

_NO_WEIGHTS = "adds something to the input and changes no weight, so that it neither merges nor has a drift"
_BY_INPUT = "computes with other weights for each input, so that it neither merges nor has a drift"

REFUSED = {
    "lora": 'has a variant of its own; write use = "lora"',
    "dora": 'has a variant of its own; write use = "dora"',
    "ia3": 'has a variant of its own; write use = "ia3"',
    "ln_tuning": 'trains norms whole, as use = "full" with train = ["*norm*"] does',
    "trainable_tokens": 'trains rows of the embeddings; write use = "lora" with new_tokens = true',
    "adalora": 'has a variant of its own; write use = "adalora"',
    "prompt_tuning": 'has a variant of its own; write use = "prompt"',
    "p_tuning": _NO_WEIGHTS,
    "prefix_tuning": 'has a variant of its own; write use = "prefix"',
    "multitask_prompt_tuning": _NO_WEIGHTS,
    "adaption_prompt": _NO_WEIGHTS,
    "cpt": _NO_WEIGHTS,
    "cartridge": _NO_WEIGHTS,
    "poly": _BY_INPUT,
    "xlora": _BY_INPUT,
    "lily": _BY_INPUT,
    "shadow": _BY_INPUT,
}
"""Methods of PEFT that this variant does not take, and why."""


class PeftOptions(TargetOptions):
    """Which method, and what PEFT is told about it."""

    method: str = Field(
        description="The method by PEFT's name for it, in lower case: `oft`, `vera`, `lokr`, `hra`, `fourierft`."
    )
    config: dict[str, Any] = Field(
        default={},
        description="Options of the method, by the names that they have in its PEFT config class; checked against "
        "that class when the run is set up, as `ftk run --dry-run` does.",
    )

    @field_validator("method")
    @classmethod
    def _changes_weights(cls, method: str) -> str:
        if method in REFUSED:
            raise ValueError(f"`{method}` {REFUSED[method]}")
        return method
