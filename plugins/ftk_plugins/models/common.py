"""The options that every built-in model source shares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options

Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class ModelOptions(Options):
    """How attention is computed, how the tokenizer writes a dialogue, how new weights are drawn."""

    attention: Attention = Field(
        default="auto",
        description="Implementation of attention; auto: the fastest that model and machine both have.",
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template in place of the model's own: Jinja text, or the path of a file with it.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Seed of the weights that are newly drawn, and of nothing else; unset: the recipe's seed.",
    )
