"""The variant `image_classification`: what an image shows."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="image_classification",
            summary="Which of several labels an image has.",
            options="ftk_plugins.objectives.image_classification.options:ImageClassificationOptions",
            build="ftk_plugins.objectives.image_classification.image_classification:ImageClassification",
            provides=("class-predictions", "target-sampling", "target-listing", "target-logits", "label-smoothing"),
            paper="Dosovitskiy et al. 2021, An Image is Worth 16x16 Words: Transformers for Image Recognition at "
            "Scale, https://arxiv.org/abs/2010.11929; mixup: Zhang et al. 2018, https://arxiv.org/abs/1710.09412; "
            "CutMix: Yun et al. 2019, https://arxiv.org/abs/1905.04899",
        )
    ]
