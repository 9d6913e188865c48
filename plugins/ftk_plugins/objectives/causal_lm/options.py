"""The options of the objective `causal_lm`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class CausalLMOptions(Options):
    """What a recipe may say about `causal_lm`."""

    text: str = Field(default="text", min_length=1, description="The column that holds the text.")
    max_length: int = Field(default=1024, ge=2, description="Most tokens of a training row.")
    long_rows: Literal["split", "truncate"] = Field(
        default="split",
        description="What happens to a longer text: it is split into several rows, or cut at the end.",
    )
    append_eos: bool = Field(default=True, description="End each text with the end-of-text token, and learn it.")
    packing: bool = Field(
        default=False,
        description="Join short texts into rows of up to `max_length` tokens; they do not see each other.",
    )
    router_loss: float | None = Field(
        default=None,
        ge=0,
        description="Weight of the balancing loss of a mixture of experts, in training; unset: 0.001 if there is one.",
    )
