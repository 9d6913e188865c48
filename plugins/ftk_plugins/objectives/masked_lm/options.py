"""The options of the objective `masked_lm`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk import Options


class MaskedLMOptions(Options):
    """What a recipe may say about `masked_lm`."""

    text: str = Field(default="text", min_length=1, description="The column that holds the text.")
    max_length: int = Field(default=512, ge=4, description="Most tokens of a training row, special ones included.")
    long_rows: Literal["split", "truncate"] = Field(
        default="split",
        description="What happens to a longer text: it is split into several rows, or cut at the end.",
    )
    packing: bool = Field(
        default=False,
        description="Join short texts into rows of up to `max_length` tokens; they do not see each other.",
    )
    probability: float = Field(
        default=0.15, gt=0, le=1, description="How probable it is for a token, or a word, to be a target."
    )
    mask_share: float = Field(
        default=0.8, ge=0, le=1, description="Share of the targets that the model reads as the mask token."
    )
    random_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the targets that it reads as a random token; the rest it reads as they are.",
    )
    whole_words: bool = Field(default=False, description="Choose whole words in place of single tokens.")

    @model_validator(mode="after")
    def _shares(self) -> MaskedLMOptions:
        if self.mask_share + self.random_share > 1 + 1e-9:
            told = f"{self.mask_share:g} + {self.random_share:g}"
            raise ValueError(f"`mask_share` and `random_share` are shares of the same targets; {told} is above 1")
        return self
