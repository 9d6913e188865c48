"""Offers the model source `mlp`: a multilayer perceptron on the pixels of images."""

from __future__ import annotations

from ftk import Variant, hookimpl


@hookimpl
def ftk_models() -> list[Variant]:
    """Offer ``mlp``."""
    return [
        Variant(
            name="mlp",
            summary="A new multilayer perceptron on the pixels of images: the reference model of continual learning.",
            options="ftk_plugins.models.mlp.options:MlpOptions",
            build="ftk_plugins.models.mlp.mlp:Mlp",
            paper="its sizes: van de Ven and Tolias 2018, Generative replay with feedback connections as a general "
            "strategy for continual learning, https://arxiv.org/abs/1809.10635, section 4.1",
        )
    ]
