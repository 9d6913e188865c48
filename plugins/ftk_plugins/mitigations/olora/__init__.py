"""Offers `olora`: adapters of later stages in directions that earlier ones did not take."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="olora",
            summary="Orthogonal LoRA: each stage's adapters read other directions of the inputs than those before.",
            options="ftk_plugins.mitigations.olora.options:OloraOptions",
            build="ftk_plugins.mitigations.olora.olora:Olora",
            needs=("low-rank",),
            provides=("sharding", "strength-knob"),
            paper="Wang et al. 2023, Orthogonal Subspace Learning for Language Model Continual Learning, "
            "https://arxiv.org/abs/2310.14152",
        )
    ]
