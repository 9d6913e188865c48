"""The options of weight-decomposed low-rank adaptation."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.adaptations.target_options import TargetOptions


class DoraOptions(TargetOptions):
    """The size and the place of the update of directions; magnitudes are trained beside it."""

    rank: int = Field(default=16, gt=0, description="Inner dimension of the update `B·A` of the directions.")
    alpha: float = Field(default=32.0, gt=0, description="Numerator of the update's scale `s = alpha / rank`.")
    rslora: bool = Field(
        default=False,
        description="Scale by `alpha / √rank` instead, which stays stable at high rank (Kalajdzievski 2023).",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an adapter's inputs that are zeroed in training."
    )
