"""The variant `classification`: labels or numbers of a text, or of a pair of texts."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="classification",
            summary="One label, several labels or a number of a text, or of a pair of texts.",
            options="ftk_plugins.objectives.classification.options:ClassificationOptions",
            build="ftk_plugins.objectives.classification.classification:Classification",
            provides=(
                "class-predictions",
                "scalar-predictions",
                "target-sampling",
                "target-listing",
                "target-logits",
                "label-smoothing",
            ),
            paper="Devlin, Chang, Lee and Toutanova 2019, BERT: Pre-training of Deep Bidirectional Transformers for "
            "Language Understanding, https://arxiv.org/abs/1810.04805, section 4.1",
        )
    ]
