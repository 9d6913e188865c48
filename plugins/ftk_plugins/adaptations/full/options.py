"""The options of full fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class StartOptions(Options):
    """Where the starting values of the weights that are trained are kept."""

    start_copy: Literal["device", "cpu", "none"] = Field(
        default="device",
        description="Where the starting weights are kept, from which drift is measured: beside the model, in "
        "main memory, or not at all, which rules out whatever needs them.",
    )

    def withheld(self) -> tuple[str, ...]:
        return ("reference", "weight-drift", "weight-scale") if self.start_copy == "none" else ()


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
