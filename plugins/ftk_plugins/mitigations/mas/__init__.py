"""Offers `mas`: memory aware synapses, importances by how sensitive the model's outputs are."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="mas",
            summary="Memory aware synapses: holds weights by how much the outputs on earlier rows depend on them.",
            options="ftk_plugins.mitigations.mas.options:MasOptions",
            build="ftk_plugins.mitigations.mas.mas:Mas",
            needs=("weight-drift", "earlier-data", "row-gradients"),
            provides=("sharding", "strength-knob"),
            paper="Aljundi et al. 2018, Memory Aware Synapses: Learning what (not) to forget, "
            "https://arxiv.org/abs/1711.09601",
        )
    ]
