"""The options of training the head alone."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.adaptations.start_options import StartOptions


class HeadOptions(StartOptions):
    """What is trained beside the head, and where starting values are kept."""

    also: tuple[str, ...] = Field(
        default=(),
        description="Name patterns (`*`, `?`, `[...]`) of weights that are trained beside the head, as a new pooler.",
    )
