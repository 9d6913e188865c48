"""Offers the evaluator `exact_match`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """The share of answers that equal their row's answer."""
    return [
        Variant(
            name="exact_match",
            summary="Share of generated answers that equal their row's answer.",
            options="ftk_plugins.evaluators.exact_match.options:ExactMatchOptions",
            build="ftk_plugins.evaluators.exact_match.exact_match:ExactMatch",
            needs=("prompts",),
            paper="Rajpurkar, Zhang, Lopyrev and Liang 2016, SQuAD: 100,000+ questions for machine"
            " comprehension of text, https://arxiv.org/abs/1606.05250",
        )
    ]
