"""The option that every adaptation of a model's own weights has: where their starting values are kept."""

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
        kept = ("reference", "weight-drift", "weight-scale", "layer-scale", "weight-set")
        return kept if self.start_copy == "none" else ()
