"""The options that quadratic pulls in drift space have in common."""

from __future__ import annotations

from pydantic import Field

from ftk import Options

STRENGTH = 0.1


class PullOptions(Options):
    """How strongly, and how often, weights are pulled."""

    strength: float = Field(
        default=STRENGTH,
        ge=0,
        description="Weight of the penalty ½ · strength · Σ Ω · drift² beside the mean loss, in nats.",
    )
    every: int = Field(
        default=1,
        gt=0,
        description="Steps in which each guarded weight is pulled once, this many times as strongly; spares the time.",
    )


class WeightedPullOptions(PullOptions):
    """And how the importances Ω of several bodies of knowledge come together."""

    gamma: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="What the importances known so far are multiplied by when others are added.",
    )
    normalise: bool = Field(
        default=True,
        description="Scale the importances of each task to mean 1 over all weights, so that `strength` travels.",
    )
