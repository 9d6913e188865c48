"""Offers `replay`: rows of earlier tasks and of the retained data, mixed into training."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="replay",
            summary="Experience replay: mixes rows of earlier tasks and of the retained data into training.",
            options="ftk_plugins.mitigations.replay.options:ReplayOptions",
            build="ftk_plugins.mitigations.replay.replay:Replay",
            needs=("earlier-data",),
            provides=("sharding",),
            paper="Rolnick et al. 2019, Experience Replay for Continual Learning, https://arxiv.org/abs/1811.11682",
        )
    ]
