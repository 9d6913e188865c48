"""The options of the transform `decontaminate`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ftk_plugins.transforms.column_options import ColumnOptions


class DecontaminateOptions(ColumnOptions):
    """What a recipe may say about `decontaminate`."""

    ngram: int = Field(
        default=13, gt=0, description="Words in a run that may not stand in both (Brown et al. 2020 take 13)."
    )
    shortest: int = Field(
        default=8,
        gt=0,
        description="A test text with fewer words than `ngram` is looked for as a whole if it has so many (Brown et "
        "al. 2020 take 8).",
    )
    common: int = Field(
        default=10,
        ge=0,
        description="A run that stands in more training rows than this is a usual phrase and no leak (Brown et al. "
        "2020 take 10).",
    )
    share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Drop a row if more than this share of its words stands in such runs; 0: at the first.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shortest > self.ngram and self.shortest != type(self).model_fields["shortest"].default:
            raise ValueError(f"`shortest` must be at most `ngram`, {self.ngram}")
        return self

    @property
    def least(self) -> int:
        """The fewest words that a test text may have."""
        return min(self.shortest, self.ngram)
