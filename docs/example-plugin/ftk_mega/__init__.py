"""Offers the mitigation `mega` to ftk."""

from ftk import Variant, hookimpl

FTK_HOOK_VERSION = 3


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="mega",
            summary="MEGA-I: steps that serve rows kept of earlier tasks the more, the worse the model knows them.",
            options="ftk_mega.options:MegaOptions",
            build="ftk_mega.mega:Mega",
            needs=("earlier-data",),
            paper="Guo et al. 2020, Improved Schemes for Episodic Memory-based Lifelong Learning, arXiv:1909.11763",
        )
    ]
