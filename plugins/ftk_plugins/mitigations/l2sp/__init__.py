"""Offers `l2sp`: a pull of every weight to where it started."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="l2sp",
            summary="L2-SP: pulls every weight to where it started, all of them alike, and new ones to zero.",
            options="ftk_plugins.mitigations.l2sp.options:L2spOptions",
            build="ftk_plugins.mitigations.l2sp.l2sp:L2sp",
            needs=("weight-drift",),
            provides=("sharding", "strength-knob"),
            paper="Li, Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer Learning with Convolutional "
            "Networks, https://arxiv.org/abs/1802.01483",
        )
    ]
