"""The options of the evaluator `regression_error`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ftk import Options

Measure = Literal["mae", "rmse", "r2", "pearson", "spearman"]


class RegressionErrorOptions(Options):
    """What a recipe may say about `regression_error`."""

    measures: tuple[Measure, ...] = Field(
        default=("rmse", "mae", "r2"),
        min_length=1,
        description="What is measured, each a metric of its own: mean absolute error, root of the mean square error, "
        "share of the variance explained, correlation of the numbers or of their ranks.",
    )

    @field_validator("measures")
    @classmethod
    def _each_once(cls, chosen: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(chosen)) < len(chosen):
            raise ValueError("names one of them twice")
        return chosen

    def metrics(self) -> tuple[str, ...]:
        return self.measures
