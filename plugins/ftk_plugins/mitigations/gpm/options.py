"""The options of `gpm`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class GpmOptions(Options):
    """How much of the inputs of earlier tasks is held, and what becomes of weights without such inputs."""

    threshold: float = Field(
        default=0.97,
        gt=0,
        le=1,
        description="Share of the squared length of a layer's inputs on the first task that its held directions span.",
    )
    growth: float = Field(default=0.003, ge=0, lt=1, description="What is added to `threshold` with each further task.")
    samples: int = Field(
        default=200, gt=0, description="Rows of each earlier task whose inputs are looked at; all where it has fewer."
    )
    others: Literal["hold", "train"] = Field(
        default="hold",
        description="What becomes of weights that multiply no input, as norms and biases: they stay, or are trained.",
    )
