"""(IA)³: the plugin that offers the adaptation ``ia3``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="ia3",
            summary="Train one factor for each key, value and feed-forward channel: the fewest parameters.",
            options="ftk_plugins.adaptations.ia3.options:Ia3Options",
            build="ftk_plugins.adaptations.ia3.ia3:Ia3",
            provides=("merge", "reference", "weight-drift", "weight-scale", "layer-scale"),
            paper="Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context "
            "Learning, https://arxiv.org/abs/2205.05638",
        )
    ]
