"""Low-rank adaptation whose ranks are shared out while it trains: the plugin that offers the adaptation ``adalora``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="adalora",
            summary="Train low-rank updates and move ranks, during the stage, to the layers where they matter.",
            options="ftk_plugins.adaptations.adalora.options:AdaLoraOptions",
            build="ftk_plugins.adaptations.adalora.adalora:AdaLora",
            provides=("merge", "reference", "weight-drift", "weight-scale", "layer-scale", "quantized-base"),
            paper="Zhang et al. 2023, AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, "
            "https://arxiv.org/abs/2303.10512",
        )
    ]
