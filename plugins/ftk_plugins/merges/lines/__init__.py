"""LiNeS: the plugin that offers the method of merging ``lines``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="lines",
            summary="Add task vectors scaled by depth: little in the first blocks, all in the last.",
            options="ftk_plugins.merges.lines.options:LinesOptions",
            build="ftk_plugins.merges.lines.lines:Lines",
            needs=("layer-scale",),
            provides=("sharding",),
            paper="Wang et al. 2024, LiNeS: post-training layer scaling prevents forgetting, https://arxiv.org/abs/2410.17146",
        )
    ]
