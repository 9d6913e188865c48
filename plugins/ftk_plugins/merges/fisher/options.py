"""The options of Fisher-weighted merging."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class FisherOptions(Options):
    """What stands in for an importance of nothing."""

    floor: float = Field(
        default=1e-6, gt=0, description="The least Fisher information that an entry counts with; its mean is 1 in ftk."
    )
