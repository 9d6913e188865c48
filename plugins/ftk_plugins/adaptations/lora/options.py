"""The options of low-rank adaptation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk_plugins.adaptations.target_options import LowRankOptions


class LoraOptions(LowRankOptions):
    """The size, the place and the start of the low-rank update ``s·B·A``."""

    init: Literal["kaiming", "gaussian", "pissa", "milora"] = Field(
        default="kaiming",
        description="How A and B start: A random and B zero, or both from the largest (`pissa`) or the "
        "smallest (`milora`) singular values of the weight.",
    )
    b_lr_ratio: float = Field(
        default=1.0, gt=0, description="Learning rate of B over that of A; LoRA+ (Hayou 2024) advises 16."
    )

    def withheld(self) -> tuple[str, ...]:
        rules_out: tuple[str, ...] = ("sharding",) if self.modules_to_save or self.new_tokens else ()
        if self.init in ("pissa", "milora"):  # what A starts as is needed
            rules_out += ("input-subspace", "low-rank")
        return (*rules_out, "input-subspace") if self.new_tokens else rules_out
