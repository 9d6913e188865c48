"""Offers `agem`: takes out of each step what works against rows kept of earlier tasks."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="agem",
            summary="Projects each step so that it does not raise the loss on rows kept of earlier tasks (A-GEM, GEM).",
            options="ftk_plugins.mitigations.agem.options:AgemOptions",
            build="ftk_plugins.mitigations.agem.agem:Agem",
            needs=("earlier-data",),
            provides=("sharding",),
            paper="Chaudhry et al. 2019, Efficient Lifelong Learning with A-GEM, https://arxiv.org/abs/1812.00420; "
            "a constraint for each task: Lopez-Paz & Ranzato 2017, Gradient Episodic Memory for Continual Learning, "
            "https://arxiv.org/abs/1706.08840",
        )
    ]
