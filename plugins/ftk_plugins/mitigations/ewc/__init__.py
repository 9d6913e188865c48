"""Offers `ewc`: elastic weight consolidation on drift."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="ewc",
            summary="Elastic weight consolidation: holds weights by how much earlier tasks depend on them.",
            options="ftk_plugins.mitigations.ewc.options:EwcOptions",
            build="ftk_plugins.mitigations.ewc.ewc:Ewc",
            needs=("weight-drift", "earlier-data", "row-gradients"),
            provides=("sharding", "strength-knob"),
            paper="Kirkpatrick et al. 2017, Overcoming catastrophic forgetting in neural networks, "
            "https://arxiv.org/abs/1612.00796; online: Schwarz et al. 2018, Progress & Compress, "
            "https://arxiv.org/abs/1805.06370",
        )
    ]
