"""Offers `freeze_important`: the weights that matter most to what was learned before do not move."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="freeze_important",
            summary="Freezes the share of the weights' entries that matters most to what was learned before.",
            options="ftk_plugins.mitigations.freeze_important.options:FreezeImportantOptions",
            build="ftk_plugins.mitigations.freeze_important.freeze_important:FreezeImportant",
            needs=("own-weights", "weight-drift"),
            provides=("sharding",),
            paper="by magnitude: Mallya and Lazebnik 2018, PackNet, https://arxiv.org/abs/1711.05769; by "
            "Fisher information: Sung, Nair and Raffel 2021, Training Neural Networks with Fixed Sparse Masks, "
            "https://arxiv.org/abs/2111.09839",
        )
    ]
