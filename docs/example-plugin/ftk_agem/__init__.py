"""Offers the mitigation `agem` to ftk."""

from ftk import Variant, hookimpl

FTK_HOOK_VERSION = 3


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="agem",
            summary="A-GEM: gradient steps that do not raise the loss on rows kept of earlier tasks.",
            options="ftk_agem.options:AgemOptions",
            build="ftk_agem.agem:Agem",
            needs=("earlier-data",),
            paper="Chaudhry et al. 2019, Efficient Lifelong Learning with A-GEM, arXiv:1812.00420",
        )
    ]
