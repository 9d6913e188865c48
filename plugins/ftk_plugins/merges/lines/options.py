"""The options of LiNeS."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class LinesOptions(Options):
    """How much of the first block is kept."""

    first: float = Field(
        default=0.0, ge=0, le=1,
        description="What the first block keeps of what the last block keeps; the blocks between rise evenly.",
    )  # fmt: skip
