"""The options of `l2sp`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk_plugins.mitigations.pull_options import PullOptions


class L2spOptions(PullOptions):
    """How strongly weights are pulled, and where to."""

    strength: float = Field(
        default=0.1,
        ge=0,
        description="The paper's α: weight of ½ · strength · Σ (W − W₀)² beside the mean loss, in nats.",
    )
    new_strength: float = Field(
        default=0.01,
        ge=0,
        description="The paper's β: weight of ½ · new_strength · Σ W² for weights without a start, as a new head's.",
    )
    anchor: Literal["stage", "run"] = Field(
        default="stage",
        description="Where W₀ is: at the start of each stage, or of the run, which is the pretrained model.",
    )
