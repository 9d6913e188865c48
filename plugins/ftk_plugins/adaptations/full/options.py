"""The options of full fine-tuning."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.adaptations.start_options import StartOptions


class FullOptions(StartOptions):
    """Which weights are trained, and where their starting values are kept."""

    train: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="Name patterns (`*`, `?`, `[...]`) of the weights that are trained.",
    )
    freeze: tuple[str, ...] = Field(
        default=(),
        description="Name patterns of weights that stay as they are, even where `train` matches them.",
    )
