"""The variant `contrastive`: texts that belong together lie near each other, and apart from others."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="contrastive",
            summary="Embeddings of texts: pairs near each other, apart from the other rows of the step.",
            options="ftk_plugins.objectives.contrastive.options:ContrastiveOptions",
            build="ftk_plugins.objectives.contrastive.contrastive:Contrastive",
            provides=("embedding-predictions", "whole-step"),
            paper="van den Oord, Li and Vinyals 2018, Representation Learning with Contrastive Predictive Coding, "
            "https://arxiv.org/abs/1807.03748; dropout views: Gao, Yao and Chen 2021, SimCSE, "
            "https://arxiv.org/abs/2104.08821; over micro-batches: Gao et al. 2021, Scaling Deep Contrastive Learning "
            "Batch Size under Memory Limited Setup, https://arxiv.org/abs/2101.06983",
        )
    ]
