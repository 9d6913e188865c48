"""The options of `freeze_important`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class FreezeImportantOptions(Options):
    """How much is frozen, and by what."""

    share: float = Field(
        default=0.5, gt=0, lt=1, description="Share of the entries that do not move, those that matter most."
    )
    by: Literal["fisher", "mas", "magnitude"] = Field(
        default="fisher",
        description="What matters: by the Fisher information or the sensitivity of the outputs on earlier tasks' rows, "
        "or by how large an entry is when the stage begins.",
    )
    scope: Literal["tensor", "all"] = Field(
        default="tensor",
        description="The share is of each weight by itself, or of the entries of all weights together.",
    )
    samples: int = Field(
        default=500,
        gt=0,
        description="Rows of each earlier task that are looked at; all rows where it has fewer.",
    )
    batch_size: int | None = Field(
        default=None, gt=0, description="Rows per pass of that; by default the stage's micro-batch."
    )

    def more_needs(self) -> tuple[str, ...]:
        return () if self.by == "magnitude" else ("earlier-data", "row-gradients")
