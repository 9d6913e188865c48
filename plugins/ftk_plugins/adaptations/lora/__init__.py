"""Low-rank adaptation: the plugin that offers the adaptation ``lora``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="lora",
            summary="Train low-rank updates of the linear layers; the model's own weights stay as they are.",
            options="ftk_plugins.adaptations.lora.options:LoraOptions",
            build="ftk_plugins.adaptations.lora.lora:Lora",
            provides=(
                "merge",
                "reference",
                "weight-drift",
                "weight-scale",
                "layer-scale",
                "quantized-base",
                "sharding",
                "input-subspace",
                "low-rank",
            ),
            paper="Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, https://arxiv.org/abs/2106.09685",
        )
    ]
