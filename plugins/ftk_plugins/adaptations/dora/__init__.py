"""Weight-decomposed low-rank adaptation: the plugin that offers the adaptation ``dora``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="dora",
            summary="Train magnitude and direction of each weight row apart, the direction by a low-rank update.",
            options="ftk_plugins.adaptations.dora.options:DoraOptions",
            build="ftk_plugins.adaptations.dora.dora:Dora",
            provides=("merge", "reference", "weight-drift", "weight-scale", "layer-scale", "quantized-base"),
            paper="Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation, https://arxiv.org/abs/2402.09353",
        )
    ]
