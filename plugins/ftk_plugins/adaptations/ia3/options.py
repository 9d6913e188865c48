"""The options of (IA)³."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk_plugins.adaptations.target_options import Patterns, TargetOptions


class Ia3Options(TargetOptions):
    """Which layers are rescaled, and at which end."""

    targets: Literal["auto", "all-linear"] | Patterns = Field(  # type: ignore[assignment]
        default="auto",
        description="Which linear layers are rescaled: keys, values and the last layer of each feed-forward block, as "
        "PEFT knows them of the model's type; all but the output layer; or those whose name, or the end of it, "
        "matches a pattern.",
    )
    feedforward: Literal["auto"] | tuple[str, ...] = Field(
        default="auto",
        description="Which of them are rescaled at their input and not at their output, by patterns; `auto`: the last "
        "layer of each feed-forward block, as PEFT knows it of the model's type.",
    )
