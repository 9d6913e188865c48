"""The variant `few_shot`: a few rows of each class."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="few_shot",
            summary="The same few rows of each class, drawn by a seed.",
            options="ftk_plugins.transforms.few_shot.options:FewShotOptions",
            build="ftk_plugins.transforms.few_shot.few_shot:FewShot",
            paper="Gao, Fisch and Chen 2021, Making Pre-trained Language Models Better Few-shot Learners, "
            "https://arxiv.org/abs/2012.15723",
        )
    ]
