"""Prefix tuning: the plugin that offers the adaptation ``prefix``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="prefix",
            summary="Train keys and values that every layer attends to before the text; the model stays as it is.",
            options="ftk_plugins.adaptations.prefix.options:PrefixOptions",
            build="ftk_plugins.adaptations.prefix.prefix:PrefixTuning",
            needs=("next-token",),
            provides=("reference",),
            paper="Li & Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation, "
            "https://arxiv.org/abs/2101.00190",
        )
    ]
