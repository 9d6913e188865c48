"""A moving average: the plugin that offers the method of merging ``ema``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="ema",
            summary="The exponential moving average over checkpoints, in the order in which they are named.",
            options="ftk_plugins.merges.ema.options:EmaOptions",
            build="ftk_plugins.merges.ema.ema:Ema",
            needs=("several-models",),
            paper="Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging, https://doi.org/10.1137/0330046",
        )
    ]
