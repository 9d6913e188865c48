"""Offers the evaluator `keyword_accuracy`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """The share of answers that hold their row's keywords."""
    return [
        Variant(
            name="keyword_accuracy",
            summary="Share of generated answers that hold their row's keywords.",
            options="ftk_plugins.evaluators.keyword_accuracy.options:KeywordAccuracyOptions",
            build="ftk_plugins.evaluators.keyword_accuracy.keyword_accuracy:KeywordAccuracy",
            needs=("prompts",),
        )
    ]
