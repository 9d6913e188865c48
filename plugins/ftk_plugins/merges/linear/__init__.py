"""Linear merging: the plugin that offers the method of merging ``linear``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="linear",
            summary="The weighted average of the models; with even weights a uniform model soup.",
            options="ftk_plugins.merges.linear.options:LinearOptions",
            build="ftk_plugins.merges.linear.linear:Linear",
            needs=("weight-scale",),
            provides=("sharding",),
            paper="Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models, https://arxiv.org/abs/2203.05482",
        )
    ]
