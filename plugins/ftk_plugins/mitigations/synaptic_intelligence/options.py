"""The options of `synaptic_intelligence`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class SynapticIntelligenceOptions(Options):
    """How importances follow from the path, and how strongly they hold."""

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
    damping: float = Field(
        default=1e-3,
        gt=0,
        description="The paper's ξ: Ω = ω / (Δ² + ξ), so that a weight that hardly moved has no boundless importance.",
    )
    gamma: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="What the importances of earlier stages are multiplied by when a stage is added.",
    )
    normalise: bool = Field(
        default=True,
        description="Scale each stage's importances to mean 1 over all weights, so that `strength` travels.",
    )
