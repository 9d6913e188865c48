"""The options of the transform `augment`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ftk import Options

OF_TEXTS = ("deletion", "swap", "synonyms", "replacement")
OF_IMAGES = ("flip", "crop", "jitter")
"""The options that act on one kind of column alone."""


class AugmentOptions(Options):
    """What a recipe may say about `augment`."""

    columns: list[str] = Field(
        min_length=1, description="The columns that are changed, of texts or of images.", examples=[["text"]]
    )
    copies: int = Field(
        default=4,
        gt=0,
        description="Changed copies beside each row (Wei and Zou 2019: 16 for 500 rows, 8 for 2,000, 4 from 5,000).",
    )
    seed: int = Field(default=0, description="Seed of what is changed; the same seed makes the same copies.")
    deletion: float = Field(
        default=0.1, ge=0, lt=1, description="Texts: the chance of each word to be left out; 0: never."
    )
    swap: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Texts: pairs of words that change places, as a share of the words; 0: none.",
    )
    synonyms: dict[str, list[str]] | str | None = Field(
        default=None,
        description='Texts: what may stand for a word, as in `{ film = ["movie"] }`, or a JSON file of such an '
        "object; unset: no word is replaced.",
    )
    replacement: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Texts: words replaced by one of their `synonyms`, as a share of the words.",
    )
    flip: float = Field(
        default=0.5, ge=0, le=1, description="Images: the chance to be mirrored left to right; 0: never."
    )
    crop: float = Field(
        default=0.08,
        gt=0,
        le=1,
        description="Images: the least share of the area that a crop keeps before it is enlarged again; 1: no crop.",
    )
    jitter: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="Images: how far brightness, contrast and saturation may go from 1 to both sides; 0: none.",
    )

    @model_validator(mode="after")
    def _can_act(self) -> Self:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("`columns` names a column twice")
        if self.synonyms is None and self.replacement != type(self).model_fields["replacement"].default:
            raise ValueError("`replacement` acts with `synonyms` alone")
        if isinstance(self.synonyms, dict) and not any(self.synonyms.values()):
            raise ValueError("`synonyms` has no word that could be replaced")
        return self

    def changed(self, names: tuple[str, ...]) -> list[str]:
        """Those of some options that are not at their defaults."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
