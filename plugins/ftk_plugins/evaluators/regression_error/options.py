"""The options of the evaluator `regression_error`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ftk import Options
from ftk_plugins.evaluators.chosen import each_once

Measure = Literal["mae", "rmse", "r2", "pearson", "spearman"]


class RegressionErrorOptions(Options):
    """What a recipe may say about `regression_error`."""

    measures: tuple[Measure, ...] = Field(
        default=("rmse", "mae", "r2"),
        min_length=1,
        description="What is measured, each a metric of its own: mean absolute error, root of the mean square error, "
        "share of the variance explained, correlation of the numbers or of their ranks.",
    )

    _each_once = field_validator("measures")(each_once)

    def metrics(self) -> tuple[str, ...]:
        return self.measures
