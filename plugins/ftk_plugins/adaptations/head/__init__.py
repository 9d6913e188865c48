"""The head alone: the plugin that offers the adaptation ``head``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="head",
            summary="Train only what stands behind the trunk: the head of the task.",
            options="ftk_plugins.adaptations.head.options:HeadOptions",
            build="ftk_plugins.adaptations.head.head:HeadTuning",
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
            paper="Alain & Bengio 2017, Understanding Intermediate Layers Using Linear Classifier Probes, https://arxiv.org/abs/1610.01644",
        )
    ]
