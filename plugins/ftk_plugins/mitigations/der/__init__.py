"""Offers `der`: earlier rows are mixed in with what the model said of them when it had learned them."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="der",
            summary="Dark Experience Replay: earlier rows with the logits that the model once gave them (DER, DER++).",
            options="ftk_plugins.mitigations.der.options:DerOptions",
            build="ftk_plugins.mitigations.der.der:Der",
            provides=("sharding", "strength-knob"),
            paper="Buzzega, Boschini, Porrello, Abati and Calderara 2020, Dark Experience for General Continual "
            "Learning: a Strong, Simple Baseline, https://arxiv.org/abs/2004.07211",
        )
    ]
