"""The variant `masked_lm`: tokens that are hidden are predicted from both sides."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="masked_lm",
            summary="Prediction of masked tokens from both sides, masked anew each time a row is drawn.",
            options="ftk_plugins.objectives.masked_lm.options:MaskedLMOptions",
            build="ftk_plugins.objectives.masked_lm.masked_lm:MaskedLM",
            provides=("token-loss", "target-sampling", "target-logits", "loss-chunks", "label-smoothing"),
            paper="Devlin et al. 2019, BERT, https://arxiv.org/abs/1810.04805, section 3.1; masks drawn anew: Liu "
            "et al. 2019, RoBERTa, https://arxiv.org/abs/1907.11692, section 4.1",
        )
    ]
