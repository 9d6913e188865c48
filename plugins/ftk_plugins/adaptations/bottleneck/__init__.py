"""Bottleneck adapters: the plugin that offers the adaptation ``bottleneck``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="bottleneck",
            summary="Train small networks put behind each block's attention and MLP; the model stays as it is.",
            options="ftk_plugins.adaptations.bottleneck.options:BottleneckOptions",
            build="ftk_plugins.adaptations.bottleneck.bottleneck:BottleneckTuning",
            provides=("reference",),
            paper="Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, https://arxiv.org/abs/1902.00751",
        )
    ]
