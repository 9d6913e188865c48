"""Offers `multitask`: several objectives in one stage over one body, each with its own rows and head."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="multitask",
            summary="Several objectives at once over one body, each with its own rows, head and scores.",
            options="ftk_plugins.objectives.multitask.options:MultitaskOptions",
            build="ftk_plugins.objectives.multitask.multitask:Multitask",
            needs=("merge",),
            provides=("several-sources",),
            paper="Caruana 1997, Multitask Learning, https://doi.org/10.1023/A:1007379606734; uncertainty: Kendall, "
            "Gal and Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses, https://arxiv.org/abs/1705.07115",
        )
    ]
