"""The options of prompt tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class PromptOptions(Options):
    """How many virtual tokens there are, and where they start."""

    tokens: int = Field(default=20, gt=0, description="How many virtual tokens stand before the text.")
    init: Literal["vocabulary", "random"] = Field(
        default="vocabulary",
        description="Where they start: at embeddings of tokens drawn from the vocabulary, or at random vectors as "
        "large as those are.",
    )
