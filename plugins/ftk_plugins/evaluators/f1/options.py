"""The options of the evaluator `f1`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ftk_plugins.evaluators.chosen import each_once
from ftk_plugins.evaluators.outcome_options import OutcomeOptions


class F1Options(OutcomeOptions):
    """What a recipe may say about `f1`."""

    averages: tuple[Literal["macro", "micro", "weighted"], ...] = Field(
        default=("macro",),
        min_length=1,
        description="How the classes are brought into one number, each a metric of its own: the mean of their F1, "
        "the F1 of all their counts together, or the mean weighted by how often each is right.",
    )

    _each_once = field_validator("averages")(each_once)

    def metrics(self) -> tuple[str, ...]:
        return tuple(f"f1_{average}" for average in self.averages)
