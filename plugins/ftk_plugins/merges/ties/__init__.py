"""TIES: the plugin that offers the method of merging ``ties``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="ties",
            summary="Keep each task vector's largest entries, elect a sign, average those that agree.",
            options="ftk_plugins.merges.ties.options:TiesOptions",
            build="ftk_plugins.merges.ties.ties:Ties",
            needs=("weight-set",),
            paper="Yadav et al. 2023, TIES-Merging: resolving interference when merging models, https://arxiv.org/abs/2306.01708",
        )
    ]
