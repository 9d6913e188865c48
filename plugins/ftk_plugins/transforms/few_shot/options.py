"""The options of the transform `few_shot`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class FewShotOptions(Options):
    """What a recipe may say about `few_shot`."""

    column: str = Field(default="label", min_length=1, description="The column that holds the class.")
    per_class: int = Field(default=16, gt=0, description="Rows of each class (Gao et al. 2021 take 16).")
    seed: int = Field(default=0, description="Seed of the draw; the same seed draws the same rows.")
    scarce: Literal["error", "keep", "drop"] = Field(
        default="error",
        description="What becomes of a class with fewer rows: an error, kept with what it has, or dropped.",
    )
