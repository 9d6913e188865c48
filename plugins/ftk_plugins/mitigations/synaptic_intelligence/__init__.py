"""Offers `synaptic_intelligence`: importances from the path that training took."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="synaptic_intelligence",
            summary="Synaptic intelligence: holds weights by how much their way lowered the loss of earlier stages.",
            options="ftk_plugins.mitigations.synaptic_intelligence.options:SynapticIntelligenceOptions",
            build="ftk_plugins.mitigations.synaptic_intelligence.synaptic_intelligence:SynapticIntelligence",
            needs=("weight-drift",),
            provides=("sharding", "strength-knob"),
            paper="Zenke, Poole and Ganguli 2017, Continual Learning Through Synaptic Intelligence, "
            "https://arxiv.org/abs/1703.04200",
        )
    ]
