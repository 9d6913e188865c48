"""The options of weight interpolation."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ftk import Options

Fraction = Annotated[float, Field(ge=0, le=1)]


class InterpolationOptions(Options):
    """How far to go from the starting weights (0) to the trained ones (1)."""

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

    @field_validator("alphas")
    @classmethod
    def _rising(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(alphas)):
            raise ValueError("the shares must rise, each above the one before it")
        return alphas

    def more_needs(self) -> tuple[str, ...]:
        return ("validation-data", "retain-validation-data") if self.alpha == "validation" else ()
