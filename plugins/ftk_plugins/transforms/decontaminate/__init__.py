"""The variant `decontaminate`: training rows without the words of test rows."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="decontaminate",
            summary="Drops training rows that share a run of words with any test set of the recipe.",
            options="ftk_plugins.transforms.decontaminate.options:DecontaminateOptions",
            build="ftk_plugins.transforms.decontaminate.decontaminate:Decontaminate",
            needs=("test-texts",),
            paper="Brown et al. 2020, Language Models are Few-Shot Learners, appendix C, "
            "https://arxiv.org/abs/2005.14165",
        )
    ]
