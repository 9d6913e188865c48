"""The options of learning rates that decay towards the input."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.adaptations.full.options import FullOptions


class LayerwiseOptions(FullOptions):
    """How fast the rate decays from block to block, which weights are trained, and where starting values are kept."""

    decay: float = Field(
        default=0.8,
        gt=0,
        lt=1,
        description="Learning rate of a block over that of the block above it.",
    )
