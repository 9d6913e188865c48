"""Offers the evaluator `accuracy`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """The share of rows whose class is predicted."""
    return [
        Variant(
            name="accuracy",
            summary="Share of test rows whose class is predicted rightly.",
            options="ftk_plugins.evaluators.accuracy.options:AccuracyOptions",
            build="ftk_plugins.evaluators.accuracy.accuracy:Accuracy",
            needs=("class-predictions",),
        )
    ]
