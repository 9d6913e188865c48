"""The last blocks: the plugin that offers the adaptation ``partial``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="partial",
            summary="Train the last blocks and what stands behind them; everything below stays as it is.",
            options="ftk_plugins.adaptations.partial.options:PartialOptions",
            build="ftk_plugins.adaptations.partial.partial:PartialTuning",
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
            paper="Lee, Tang & Lin 2019, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning, https://arxiv.org/abs/1911.03090",
        )
    ]
