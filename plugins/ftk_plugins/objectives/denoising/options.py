"""The options of the objective `denoising`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk import Options

SENTINEL = "<extra_id_{}>"
"""As T5 spells them."""

DENSITY = {"spans": 0.15, "infilling": 0.3}
"""The share of tokens that the papers hide."""


class DenoisingOptions(Options):
    """What a recipe may say about `denoising`."""

    scheme: Literal["spans", "infilling"] = Field(
        default="spans",
        description="spans: each gap is read as a sentinel of its own, and only the gaps are written (T5). "
        "infilling: each gap is read as a mask, and the whole text is written (BART).",
    )
    text: str = Field(default="text", min_length=1, description="The column that holds the text.")
    max_length: int = Field(default=512, ge=8, description="Most tokens of a training row, special ones included.")
    long_rows: Literal["split", "truncate"] = Field(
        default="split",
        description="What happens to a longer text: it is split into several rows, or cut at the end.",
    )
    density: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the tokens that are hidden; unset: 0.15 for spans, 0.3 for infilling.",
    )
    mean_span: float = Field(
        default=3.0,
        ge=1,
        description="Mean length of a gap, in tokens; for infilling the mean of a Poisson distribution.",
    )
    sentinel: str = Field(
        default=SENTINEL,
        description="How the tokenizer spells its sentinels, with `{}` for their number from 0; for spans.",
    )
    permute_sentences: bool = Field(
        default=False, description="Shuffle the sentences that the encoder reads; for infilling."
    )

    @model_validator(mode="after")
    def _of_the_scheme(self) -> DenoisingOptions:
        if "{}" not in self.sentinel:
            raise ValueError("`sentinel` must hold `{}`, where the number stands")
        if self.scheme == "infilling" and self.sentinel != SENTINEL:
            raise ValueError('`sentinel` is of `scheme = "spans"`; infilling reads the mask token in its place')
        if self.scheme == "spans" and self.permute_sentences:
            raise ValueError(
                '`permute_sentences` is of `scheme = "infilling"`, which writes the whole text in its order'
            )
        return self

    @property
    def hidden_share(self) -> float:
        """The density, chosen or the paper's."""
        return DENSITY[self.scheme] if self.density is None else self.density
