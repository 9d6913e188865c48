"""Fisher-weighted merging: the plugin that offers the method of merging ``fisher``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="fisher",
            summary="The average of the models, each entry weighed by its Fisher information.",
            options="ftk_plugins.merges.fisher.options:FisherOptions",
            build="ftk_plugins.merges.fisher.fisher:FisherWeighted",
            needs=("weight-set", "weight-drift", "earlier-data", "row-gradients"),
            provides=("sharding",),
            paper="Matena and Raffel 2021, Merging models with Fisher-weighted averaging, https://arxiv.org/abs/2111.09832",
        )
    ]
