"""Offers the evaluator `multiple_choice`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """The share of questions whose right choice is the likeliest."""
    return [
        Variant(
            name="multiple_choice",
            summary="Share of questions whose right choice is the likeliest, of a task or of a data set of its own.",
            options="ftk_plugins.evaluators.multiple_choice.options:MultipleChoiceOptions",
            build="ftk_plugins.evaluators.multiple_choice.multiple_choice:MultipleChoice",
            needs=("next-token",),
            provides=("own-rows", "while-training"),
            paper="Brown et al. 2020, Language Models are Few-Shot Learners, section 2.4, https://arxiv.org/abs/2005.14165;"
            " Gao et al. 2021, lm-evaluation-harness, https://doi.org/10.5281/zenodo.5371628",
        )
    ]
