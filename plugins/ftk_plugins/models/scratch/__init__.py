"""Offers the model source `scratch`: a new model with a tokenizer trained on the recipe's data."""

from __future__ import annotations

from ftk import Variant, hookimpl


@hookimpl
def ftk_models() -> list[Variant]:
    """Offer ``scratch``."""
    return [
        Variant(
            name="scratch",
            summary="A new model from an architecture and sizes, with a tokenizer trained on the recipe's data.",
            options="ftk_plugins.models.scratch.options:ScratchOptions",
            build="ftk_plugins.models.scratch.scratch:Scratch",
            paper="Sennrich, Haddow and Birch 2016, Neural Machine Translation of Rare Words with Subword Units, "
            "https://arxiv.org/abs/1508.07909 (the tokenizer); Radford et al. 2019, Language Models are Unsupervised "
            "Multitask Learners (its byte-level alphabet)",
        )
    ]
