"""The options of the data set `drawn_shapes`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk_plugins.datasets.row_options import RowOptions


class DrawnShapesOptions(RowOptions):
    """What a recipe may say about `drawn_shapes`."""

    scene: Literal["one", "two"] = Field(
        default="one",
        description="What is drawn: one shape, small or large, in one of nine places; or two shapes, one left of the "
        "other or above it.",
    )
    pixels: int = Field(default=48, ge=16, le=512, description="Height and width of the drawings, in pixels.")
