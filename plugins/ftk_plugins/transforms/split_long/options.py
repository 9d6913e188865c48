"""The options of the transform `split_long`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftk import Options


class SplitLongOptions(Options):
    """What a recipe may say about `split_long`."""

    column: str = Field(default="text", min_length=1, description="The column whose texts, or lists of words, are cut.")
    beside: tuple[str, ...] = Field(
        default=(),
        description="Columns that hold an entry for each word of `column`'s list, such as tags, and are cut with it.",
    )
    size: int = Field(default=200, gt=0, description="The longest window, in `unit`s (Pappagari et al. 2019 take 200).")
    overlap: int = Field(default=50, ge=0, description="How much two neighbouring windows share, in `unit`s.")
    unit: Literal["words", "characters"] = Field(
        default="words",
        description="What is counted; in scripts without spaces, such as Chinese, each character is a word.",
    )

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError(f"`overlap` must be below `size`, {self.size}, or the windows would stand still")
        return self
