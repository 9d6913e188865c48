"""Prompt tuning: the plugin that offers the adaptation ``prompt``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="prompt",
            summary="Train the embeddings of some virtual tokens before the text; the model stays as it is.",
            options="ftk_plugins.adaptations.prompt.options:PromptOptions",
            build="ftk_plugins.adaptations.prompt.prompt:PromptTuning",
            needs=("next-token",),
            provides=("reference",),
            paper="Lester, Al-Rfou & Constant 2021, The Power of Scale for Parameter-Efficient Prompt Tuning, "
            "https://arxiv.org/abs/2104.08691",
        )
    ]
