"""The options of TIES."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class TiesOptions(Options):
    """Which entries count, and how far to go."""

    density: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Share of each weight's entries that is kept, the largest of the task vector.",
    )
    scale: float = Field(default=1.0, gt=0, description="What the merged task vector is multiplied by (λ).")
