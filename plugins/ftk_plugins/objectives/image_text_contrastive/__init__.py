"""The variant `image_text_contrastive`: images and the texts that tell of them lie near each other."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="image_text_contrastive",
            summary="Embeddings of images and texts in one space: pairs near each other (CLIP).",
            options="ftk_plugins.objectives.image_text_contrastive.options:ImageTextContrastiveOptions",
            build="ftk_plugins.objectives.image_text_contrastive.image_text_contrastive:ImageTextContrastive",
            provides=("embedding-predictions", "whole-step"),
            paper="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, "
            "https://arxiv.org/abs/2103.00020",
        )
    ]
