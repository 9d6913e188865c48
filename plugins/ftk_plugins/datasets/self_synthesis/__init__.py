"""The variant `self_synthesis`: rows that the starting model writes."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="self_synthesis",
            summary="Rows that the starting model writes, filtered by its own perplexity: to retain without old data.",
            options="ftk_plugins.datasets.self_synthesis.options:SelfSynthesisOptions",
            build="ftk_plugins.datasets.self_synthesis.self_synthesis:SelfSynthesis",
            needs=("trained-model",),
            paper="Huang et al. 2024, Mitigating Catastrophic Forgetting in Large Language Models with "
            "Self-Synthesized Rehearsal, https://arxiv.org/abs/2403.01244; questions from a chat template: Xu et al. "
            "2024, Magpie, https://arxiv.org/abs/2406.08464",
        )
    ]
