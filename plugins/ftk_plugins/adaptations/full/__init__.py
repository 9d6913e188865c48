"""Full fine-tuning: the plugin that offers the adaptation ``full``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="full",
            summary="Train the model's own weights: all of them, or those whose names match.",
            options="ftk_plugins.adaptations.full.options:FullOptions",
            build="ftk_plugins.adaptations.full.full:FullTuning",
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
        )
    ]
