"""The option that transforms of texts share: which columns they work on."""

from __future__ import annotations

from pydantic import Field, field_validator

from ftk import Options


class ColumnOptions(Options):
    """What a recipe may say about a transform that reads texts."""

    columns: list[str] | None = Field(
        default=None,
        min_length=1,
        description="The columns it works on, texts in lists and in chat messages too; unset: every column with text.",
    )

    @field_validator("columns")
    @classmethod
    def _once(cls, columns: list[str] | None) -> list[str] | None:
        if columns is not None and len(set(columns)) < len(columns):
            raise ValueError("names a column twice")
        return columns
