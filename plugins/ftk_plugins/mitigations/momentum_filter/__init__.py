"""Offers `momentum_filter`: MoFO, steps that move only the weights with the largest momentum."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="momentum_filter",
            summary="MoFO: in each step only the entries of a weight with the largest momentum move.",
            options="ftk_plugins.mitigations.momentum_filter.options:MomentumFilterOptions",
            build="ftk_plugins.mitigations.momentum_filter.momentum_filter:MomentumFilter",
            needs=("own-weights", "momentum"),
            provides=("sharding",),
            paper="Chen et al. 2024, MoFO: Momentum-Filtered Optimizer for Mitigating Forgetting in LLM Fine-Tuning, "
            "https://arxiv.org/abs/2407.20999",
        )
    ]
