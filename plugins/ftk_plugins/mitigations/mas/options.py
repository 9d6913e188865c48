"""The options of `mas`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class MasOptions(Options):
    """How the sensitivity of the outputs is measured, and how strongly it holds."""

    strength: float = Field(
        default=0.1,
        ge=0,
        description="Weight of the penalty ½ · strength · Σ Ω · drift² beside the mean loss, in nats.",
    )
    every: int = Field(
        default=1,
        gt=0,
        description="Steps in which each guarded weight is pulled once, this many times as strongly; spares the time.",
    )
    samples: int = Field(
        default=500,
        gt=0,
        description="Rows of each earlier task whose outputs are differentiated; all rows where it has fewer.",
    )
    gamma: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="What the importances of earlier tasks are multiplied by when a task is added.",
    )
    normalise: bool = Field(
        default=True,
        description="Scale each task's importances to mean 1 over all weights, so that `strength` travels.",
    )
    batch_size: int | None = Field(
        default=None, gt=0, description="Rows per pass of the measurement; by default the stage's micro-batch."
    )
