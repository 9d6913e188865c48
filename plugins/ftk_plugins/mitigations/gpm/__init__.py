"""Offers `gpm`: keeps updates off the inputs that layers had on earlier tasks."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="gpm",
            summary="Gradient projection memory: layers change only for inputs that earlier tasks did not give them.",
            options="ftk_plugins.mitigations.gpm.options:GpmOptions",
            build="ftk_plugins.mitigations.gpm.gpm:Gpm",
            needs=("input-subspace", "weight-drift", "earlier-data"),
            provides=("sharding",),
            paper="Saha, Garg and Roy 2021, Gradient Projection Memory for Continual Learning, "
            "https://arxiv.org/abs/2103.09762",
        )
    ]
