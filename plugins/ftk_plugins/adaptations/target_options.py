"""The options that every adaptation made of PEFT's layers has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftk import Options

Patterns = Annotated[tuple[str, ...], Field(min_length=1)]


class TargetOptions(Options):
    """Where adapters go, and what is trained whole beside them."""

    targets: Literal["all-linear"] | Patterns = Field(
        default="all-linear",
        description="Which linear layers get an adapter: all but the output layer, or those whose name, or "
        'the end of it, matches a pattern, as in `["q_proj", "layers.[0-3].mlp.*"]`.',
    )
    modules_to_save: tuple[str, ...] = Field(
        default=(),
        description="Modules that are trained whole beside the adapters, by patterns as in `targets`: a head that "
        "is new, or embeddings.",
    )


class LowRankOptions(TargetOptions):
    """The size of a low-rank update ``s·B·A``."""

    rank: int = Field(default=16, gt=0, description="Inner dimension of the update `B·A`.")
    alpha: float = Field(default=32.0, gt=0, description="Numerator of the update's scale `s = alpha / rank`.")
    rslora: bool = Field(
        default=False,
        description="Scale by `alpha / √rank` instead, which stays stable at high rank (Kalajdzievski 2023).",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an adapter's inputs that are zeroed in training."
    )
    new_tokens: bool = Field(
        default=False,
        description="Train the rows that the model's `new_tokens` have in the embedding and the output layer, and no "
        "other row, beside the adapters.",
    )

    def more_needs(self) -> tuple[str, ...]:
        return ("new-tokens",) if self.new_tokens else ()
