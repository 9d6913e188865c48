"""The options of gradual unfreezing."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ftk_plugins.adaptations.layerwise_lr.options import LayerwiseOptions


class ProgressiveOptions(LayerwiseOptions):
    """When each block is thawed, at which rate it then learns, and what full tuning may say."""

    first_blocks: int = Field(
        default=0,
        ge=0,
        description="How many of the last blocks are trained from the first step on, beside what stands behind them.",
    )
    thawed_by: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the stage's steps after which all is thawed, at even intervals; unset: half of them.",
    )
    thaw_every: int | None = Field(
        default=None,
        gt=0,
        description="Optimizer steps from one block to the next, in place of `thawed_by`.",
    )
    decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Learning rate of a block over that of the block above it; 1: the same.",
    )

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.thaw_every is not None and self.thawed_by is not None:
            raise ValueError("`thaw_every` and `thawed_by` both say how fast to thaw: write one of them")
        return self
