"""DARE: the plugin that offers the method of merging ``dare``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="dare",
            summary="Drop entries of each task vector at random, rescale the rest, then add up or elect signs.",
            options="ftk_plugins.merges.dare.options:DareOptions",
            build="ftk_plugins.merges.dare.dare:Dare",
            needs=("weight-set",),
            paper="Yu et al. 2023, Language models are super Mario, https://arxiv.org/abs/2311.03099",
        )
    ]
