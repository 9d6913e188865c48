"""Offers the model source `pretrained`: a model from the Hugging Face hub, a folder or a GGUF file."""

from __future__ import annotations

from ftk import Variant, hookimpl


@hookimpl
def ftk_models() -> list[Variant]:
    """Offer ``pretrained``."""
    return [
        Variant(
            name="pretrained",
            summary="A pretrained model: from the Hugging Face hub, a local folder, or a GGUF file.",
            options="ftk_plugins.models.pretrained.options:PretrainedOptions",
            build="ftk_plugins.models.pretrained.pretrained:Pretrained",
            provides=("new-tokens", "trained-model"),
        )
    ]
