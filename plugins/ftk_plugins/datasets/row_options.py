"""The options that data sets of rows share: columns, limit, and how the rows are divided."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from ftk import Options


class RowOptions(Options):
    """What a recipe may say about any source that reads rows from elsewhere."""

    columns: dict[str, str] = Field(
        default={},
        description='New names for columns, as in `{ instruction = "question" }`: the name ftk reads, then '
        "the name in the data. Other columns keep their names.",
    )
    limit: int | None = Field(default=None, gt=0, description="Read no more than this many rows; unset: all.")
    validation_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the rows set aside for validation, drawn by `seed`."
    )
    test_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the rows set aside for testing, drawn by `seed`."
    )
    seed: int = Field(default=0, description="Seed of the draw; the same seed always sets the same rows aside.")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("`validation_fraction` and `test_fraction` leave nothing to train on")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError("`columns` gives one column two names")
        return self

    def withheld(self) -> tuple[str, ...]:
        kept = {"validation-data": self.validation_fraction, "test-data": self.test_fraction}
        return tuple(capability for capability, fraction in kept.items() if not fraction)

    @property
    def fractions(self) -> dict[Any, float]:
        """The shares above 0 by the split they make."""
        shares = {"validation": self.validation_fraction, "test": self.test_fraction}
        return {split: share for split, share in shares.items() if share > 0}
