"""Spherical merging: the plugin that offers the method of merging ``slerp``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="slerp",
            summary="Along the arc between two models, by the angle between their weights.",
            options="ftk_plugins.merges.slerp.options:SlerpOptions",
            build="ftk_plugins.merges.slerp.slerp:Slerp",
            needs=("weight-set",),
            paper="Shoemake 1985, Animating rotation with quaternion curves, https://doi.org/10.1145/325165.325242",
        )
    ]
