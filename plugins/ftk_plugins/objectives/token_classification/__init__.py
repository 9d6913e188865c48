"""The variant `token_classification`: a tag of each word."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="token_classification",
            summary="A tag of each word: names, parts of speech, terms.",
            options="ftk_plugins.objectives.token_classification.options:TokenClassificationOptions",
            build="ftk_plugins.objectives.token_classification.token_classification:TokenClassification",
            provides=("class-predictions", "target-sampling", "target-logits", "label-smoothing"),
            paper="Devlin, Chang, Lee and Toutanova 2019, BERT: Pre-training of Deep Bidirectional Transformers for "
            "Language Understanding, https://arxiv.org/abs/1810.04805, section 5.3",
        )
    ]
