"""Offers the evaluator `f1`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """F1 of classes."""
    return [
        Variant(
            name="f1",
            summary="F1 of predicted classes: macro, micro or weighted; each class in the report.",
            options="ftk_plugins.evaluators.f1.options:F1Options",
            build="ftk_plugins.evaluators.f1.f1:F1",
            needs=("class-predictions",),
            paper="van Rijsbergen 1979, Information Retrieval, chapter 7; averages: Yang and Liu 1999, A "
            "re-examination of text categorization methods, https://doi.org/10.1145/312624.312647",
        )
    ]
