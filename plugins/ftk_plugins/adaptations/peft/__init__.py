"""Any method of PEFT that changes weights: the plugin that offers the adaptation ``peft``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_adaptations() -> list[Variant]:
    return [
        Variant(
            name="peft",
            summary="Train by any other method of the installed PEFT that changes weights: OFT, VeRA, LoKr and more.",
            options="ftk_plugins.adaptations.peft.options:PeftOptions",
            build="ftk_plugins.adaptations.peft.any_method:AnyMethod",
            provides=("merge", "reference", "weight-drift", "weight-scale", "layer-scale"),
            paper="Mangrulkar et al. 2022, PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods, "
            "https://github.com/huggingface/peft",
        )
    ]
