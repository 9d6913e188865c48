"""The variant `denoising`: an encoder reads a damaged text, a decoder writes what is missing, or all of it."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="denoising",
            summary="An encoder-decoder repairs a damaged text: T5's span corruption or BART's infilling.",
            options="ftk_plugins.objectives.denoising.options:DenoisingOptions",
            build="ftk_plugins.objectives.denoising.denoising:Denoising",
            provides=("token-loss", "target-sampling", "target-logits", "loss-chunks", "label-smoothing"),
            paper="Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text "
            "Transformer, section 3.3.4, https://arxiv.org/abs/1910.10683; Lewis et al. 2020, BART, section 2.2, "
            "https://arxiv.org/abs/1910.13461",
        )
    ]
