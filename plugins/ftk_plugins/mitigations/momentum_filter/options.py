"""The options of `momentum_filter`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class MomentumFilterOptions(Options):
    """How much of a weight moves in a step."""

    share: float = Field(
        default=0.15,
        gt=0,
        le=1,
        description="The paper's α: share of each weight's entries that move in a step, those of the largest momentum.",
    )
