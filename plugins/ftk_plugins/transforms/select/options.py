"""The options of the transform `select`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class SelectOptions(Options):
    """What a recipe may say about `select`."""

    column: str = Field(default="label", min_length=1, description="The column that tells which rows to keep.")
    values: tuple[str | int, ...] = Field(
        min_length=1, description="What it may hold: texts or whole numbers; of classes with names also these."
    )
