"""Offers the evaluator `regression_error`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """How far predicted numbers are from the right ones."""
    return [
        Variant(
            name="regression_error",
            summary="How far predicted numbers are from the right ones: mae, rmse, r2, pearson, spearman.",
            options="ftk_plugins.evaluators.regression_error.options:RegressionErrorOptions",
            build="ftk_plugins.evaluators.regression_error.regression_error:RegressionError",
            needs=("scalar-predictions",),
        )
    ]
