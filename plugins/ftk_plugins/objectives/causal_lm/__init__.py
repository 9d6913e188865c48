"""The variant `causal_lm`: next-token prediction on running text."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="causal_lm",
            summary="Next-token prediction on running text, packed into full blocks if asked.",
            options="ftk_plugins.objectives.causal_lm.options:CausalLMOptions",
            build="ftk_plugins.objectives.causal_lm.causal_lm:CausalLM",
            provides=("next-token", "token-loss", "target-sampling", "target-logits", "loss-chunks", "label-smoothing"),
            paper="Radford, Narasimhan, Salimans, Sutskever 2018, Improving Language Understanding by "
            "Generative Pre-Training; packing: Ding et al. 2024, Fewer Truncations Improve Language "
            "Modeling, https://arxiv.org/abs/2404.10830",
        )
    ]
