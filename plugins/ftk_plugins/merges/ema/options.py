"""The options of the moving average."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class EmaOptions(Options):
    """How fast early checkpoints fade."""

    decay: float = Field(
        default=0.9, ge=0, lt=1, description="What the average so far keeps when the next checkpoint comes in."
    )
