"""Offers the model source `scratch`: a new model with a tokenizer trained on the recipe's data."""

from __future__ import annotations

from ftk import Variant, hookimpl


@hookimpl
def ftk_models() -> list[Variant]:
    """Offer ``scratch``."""
    return [
        Variant(
            name="scratch",
            summary="A new model of any architecture and size, its tokenizer trained on the recipe's data.",
            options="ftk_plugins.models.scratch.options:ScratchOptions",
            build="ftk_plugins.models.scratch.scratch:Scratch",
            paper="The tokenizer: Sennrich, Haddow and Birch 2016, Neural Machine Translation of Rare Words "
            "with Subword Units, https://arxiv.org/abs/1508.07909; in bytes: Radford et al. 2019, Language "
            "Models are Unsupervised Multitask Learners",
        )
    ]
