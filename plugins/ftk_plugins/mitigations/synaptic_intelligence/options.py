"""The options of `synaptic_intelligence`."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.mitigations.pull_options import WeightedPullOptions


class SynapticIntelligenceOptions(WeightedPullOptions):
    """How importances follow from the path, and how strongly they hold."""

    damping: float = Field(
        default=1e-3,
        gt=0,
        description="The paper's ξ: Ω = ω / (Δ² + ξ), so that a weight that hardly moved has no boundless importance.",
    )
