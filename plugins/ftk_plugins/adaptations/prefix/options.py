"""The options of prefix tuning."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftk import Options


class PrefixOptions(Options):
    """How long the prefix is, where it starts, and whether a network makes it."""

    tokens: int = Field(default=20, gt=0, description="How many positions every layer attends to before the text.")
    init: Literal["vocabulary", "random"] = Field(
        default="vocabulary",
        description="Where keys and values start: at those of tokens drawn from the vocabulary, or at random.",
    )
    projection: int | None = Field(
        default=None,
        gt=0,
        description="Width of a hidden layer from which keys and values of all layers are made in training (512 to "
        "800 in the paper); unset: they are trained themselves.",
    )

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if self.projection is not None and self.init != "random":
            raise ValueError('a projection starts at random: write init = "random" beside it')
        return self
