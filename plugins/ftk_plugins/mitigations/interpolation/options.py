"""The options of weight interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ftk import Options

Fraction = Annotated[float, Field(ge=0, le=1)]
OF_WEIGHTS = {"every": ("average", "ema"), "begin": ("average",), "decay": ("ema",)}
"""Options that only some choices of ``trained_weights`` look at."""

OF_CHOOSING = ("alphas", "retention_floor", "metric")
"""Options that only ``alpha = "validation"`` looks at."""

WITHOUT_IMPORTANCES = ("linear", "slerp", "ties", "dare", "task_arithmetic", "lines", "ema")
"""Methods of ftk's own to which ``samples`` says nothing; a third party's is asked when it is built."""


class InterpolationOptions(Options):
    """How far to go from the starting weights (0) to the trained ones (1), and on which way."""

    alpha: Fraction | Literal["validation"] = Field(
        default=0.5, description="Share of the drift that is kept, 0 to 1; `validation`: chosen by measuring."
    )
    alphas: tuple[Fraction, ...] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        min_length=1,
        description="The shares that `validation` tries, rising.",
    )
    retention_floor: float = Field(
        default=0.95,
        ge=0,
        description="What each earlier task must keep of its score at share 0 for `validation` to choose it.",
    )
    metric: str | None = Field(
        default=None,
        description="The metric that `validation` compares; by default each task's first metric.",
    )
    method: str | dict[str, Any] = Field(
        default="linear",
        description="How the two ends are merged: a method of merging, by name or as a table with its options.",
    )
    trained_weights: Literal["last", "average", "ema"] = Field(
        default="last",
        description="The trained end: the last step's weights, their average over the stage's steps, or a moving one.",
    )
    every: int | None = Field(
        default=None, gt=0, description="Steps from one taken into an average to the next; by default 1."
    )
    begin: float | None = Field(
        default=None, ge=0, lt=1, description="Share of the stage after which `average` begins; by default 0.5."
    )
    decay: float | None = Field(
        default=None, ge=0, lt=1, description="What `ema` keeps of the average at each step; by default 0.999."
    )
    samples: int | None = Field(
        default=None, gt=0, description="Rows of each task for the Fisher information of `fisher`; by default 500."
    )

    @field_validator("alphas")
    @classmethod
    def _rising(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(alphas)):
            raise ValueError("the shares must rise, each above the one before it")
        return alphas

    @model_validator(mode="after")
    def _acting(self) -> InterpolationOptions:
        for name, choices in OF_WEIGHTS.items():
            if getattr(self, name) is not None and self.trained_weights not in choices:
                told = " or ".join(f'"{choice}"' for choice in choices)
                raise ValueError(f"`{name}` says nothing unless trained_weights is {told}")
        for name in OF_CHOOSING:
            if self.alpha != "validation" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f'`{name}` says nothing unless alpha is "validation"; leave it out')
        if self.samples is not None and self.merges()["method"].get("use") in WITHOUT_IMPORTANCES:
            raise ValueError("`samples` says nothing unless the method needs importances, as `fisher` does")
        return self

    def merges(self) -> Mapping[str, Mapping[str, Any]]:
        return {"method": {"use": self.method} if isinstance(self.method, str) else self.method}

    def more_needs(self) -> tuple[str, ...]:
        rows = ("validation-data", "retain-validation-data") if self.alpha == "validation" else ()
        return rows if self.trained_weights == "last" else (*rows, "weight-set", "weight-drift")
