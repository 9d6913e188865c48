"""The options of training the last blocks."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.adaptations.start_options import StartOptions


class PartialOptions(StartOptions):
    """How many blocks are trained, what beside them, and where starting values are kept."""

    blocks: int = Field(
        default=3,
        ge=0,
        description="How many of the last blocks are trained, of each stack: a quarter of twelve; 0: none of them.",
    )
    also: tuple[str, ...] = Field(
        default=(),
        description="Name patterns (`*`, `?`, `[...]`) of further weights that are trained, wherever they stand.",
    )
