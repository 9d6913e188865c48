"""Offers `distill`: the model under training goes on predicting what the stage's starting model predicted."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="distill",
            summary="Learning without Forgetting: keep the starting model's predictions on new or earlier rows.",
            options="ftk_plugins.mitigations.distill.options:DistillOptions",
            build="ftk_plugins.mitigations.distill.distill:Distill",
            provides=("sharding", "strength-knob"),
            paper="Li and Hoiem 2016, Learning without Forgetting, https://arxiv.org/abs/1606.09282",
        )
    ]
