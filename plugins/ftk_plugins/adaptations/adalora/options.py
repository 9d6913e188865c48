"""The options of low-rank adaptation with ranks that move between layers."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ftk_plugins.adaptations.target_options import TargetOptions


class AdaLoraOptions(TargetOptions):
    """How many ranks there are, at first and in the end, and when and by what they are taken away."""

    rank: int = Field(default=8, gt=0, description="Ranks that a layer has in the end, on average over the layers.")
    start_rank: int | None = Field(
        default=None,
        gt=1,
        description="Ranks that every layer starts with, more than `rank`; unset: one and a half times `rank`.",
    )
    alpha: float = Field(
        default=32.0, gt=0, description="Numerator of the update's scale `alpha / start_rank`, the same throughout."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an adapter's inputs that are zeroed in training."
    )
    first_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the stage's steps before the first rank is taken away."
    )
    last_share: float = Field(
        default=0.4, ge=0, lt=1, description="Share of the stage's steps, at its end, in which ranks stay as they are."
    )
    every: int = Field(
        default=10, gt=0, description="Optimizer steps from one sharing out of the ranks to the next, in between."
    )
    sensitivity_decay: float = Field(
        default=0.85, gt=0, lt=1, description="How much of a parameter's smoothed sensitivity stays from step to step."
    )
    uncertainty_decay: float = Field(
        default=0.85, gt=0, lt=1, description="The same of its uncertainty, the smoothed distance from that."
    )
    orthogonality: float = Field(
        default=0.5,
        ge=0,
        description="Weight of the penalty that keeps the directions of each update orthogonal, and so apart.",
    )

    @property
    def ranks_at_first(self) -> int:
        """Of each layer."""
        return self.start_rank or -(-3 * self.rank // 2)

    @model_validator(mode="after")
    def _some_to_take_away(self) -> Self:
        if self.ranks_at_first <= self.rank:
            raise ValueError(f"`start_rank` = {self.start_rank} leaves none to take away down to `rank` = {self.rank}")
        if self.first_share + self.last_share >= 1:
            raise ValueError("`first_share` and `last_share` leave no steps in which ranks are shared out")
        return self
