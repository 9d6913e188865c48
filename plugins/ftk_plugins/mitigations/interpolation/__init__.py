"""Weight interpolation: the plugin that offers the mitigation ``interpolation``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="interpolation",
            summary="After training, step back towards the starting weights: WiSE-FT, or another method of merging.",
            options="ftk_plugins.mitigations.interpolation.options:InterpolationOptions",
            build="ftk_plugins.mitigations.interpolation.interpolation:Interpolation",
            provides=("sharding",),
            paper="Wortsman et al. 2022, Robust fine-tuning of zero-shot models, https://arxiv.org/abs/2109.01903",
        )
    ]
