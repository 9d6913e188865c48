"""Offers `pcgrad`: takes out of each source's gradient what works against another's."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="pcgrad",
            summary="Projects conflicting gradients: no task's rows pull against those of another in a step.",
            options="ftk_plugins.mitigations.pcgrad.options:PcgradOptions",
            build="ftk_plugins.mitigations.pcgrad.pcgrad:Pcgrad",
            needs=("source-gradients", "several-sources"),
            provides=("sharding",),
            paper="Yu et al. 2020, Gradient Surgery for Multi-Task Learning, https://arxiv.org/abs/2001.06782",
        )
    ]
