"""Rates that decay towards the input: the plugin that offers the adaptation ``layerwise_lr``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="layerwise_lr",
            summary="Train all weights, each block at a lower learning rate than the one above it.",
            options="ftk_plugins.adaptations.layerwise_lr.options:LayerwiseOptions",
            build="ftk_plugins.adaptations.layerwise_lr.layerwise_lr:LayerwiseTuning",
            provides=(
                "merge",
                "reference",
                "weight-drift",
                "weight-scale",
                "layer-scale",
                "weight-set",
                "own-weights",
                "sharding",
                "input-subspace",
            ),
            paper="Howard & Ruder 2018, Universal Language Model Fine-tuning for Text Classification, https://arxiv.org/abs/1801.06146",
        )
    ]
