"""Gradual unfreezing: the plugin that offers the adaptation ``progressive``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="progressive",
            summary="Thaw block after block in the course of the stage: downwards from the head, or as they matter.",
            options="ftk_plugins.adaptations.progressive.options:ProgressiveOptions",
            build="ftk_plugins.adaptations.progressive.progressive:ProgressiveTuning",
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
