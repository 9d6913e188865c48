"""The options of gradual unfreezing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftk_plugins.adaptations.layerwise_lr.options import LayerwiseOptions


class ProgressiveOptions(LayerwiseOptions):
    """When each block is thawed, at which rate it then learns, and what full tuning may say."""

    order: Literal["depth", "new", "old"] = Field(
        default="depth",
        description="Which part is thawed first: the block next to the output, what matters most to the new task, or "
        "what matters least to the old ones.",
    )
    samples: int | None = Field(
        default=None,
        gt=0,
        description='Rows of each task that tell what matters to it, with the orders "new" and "old"; unset: 100.',
    )
    first_blocks: int = Field(
        default=0,
        ge=0,
        description="How many blocks, the first in the order, are trained from the first step on, beside what stands "
        "behind the last.",
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

    def more_needs(self) -> tuple[str, ...]:
        return ("earlier-data", "row-gradients") if self.order == "old" else ()

    def withheld(self) -> tuple[str, ...]:
        return super().withheld() if self.order == "depth" else (*super().withheld(), "sharding")

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if self.samples is not None and self.order == "depth":
            raise ValueError('`samples` is for an `order` that is measured: "new" or "old"')
        return self

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.thaw_every is not None and self.thawed_by is not None:
            raise ValueError("`thaw_every` and `thawed_by` both say how fast to thaw: write one of them")
        return self
