"""The options of the data set `images`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ftk_plugins.datasets.row_options import RowOptions


class ImagesOptions(RowOptions):
    """What a recipe may say about `images`."""

    path: str = Field(
        min_length=1,
        description="A folder. Without `captions` it holds a folder for each class, whose name is the class's; `~` is "
        "your home.",
    )
    captions: str | None = Field(
        default=None, min_length=1,
        description="A JSON Lines, JSON, CSV or Parquet file in the folder that names the images in a column, with "
        "their captions, or whatever is told of them, in others.",
    )  # fmt: skip
    file_column: str = Field(
        default="file", min_length=1,
        description="The column of `captions` that names an image, by its path in the folder.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _acts(self) -> Self:
        if self.captions is None and self.file_column != "file":
            raise ValueError("`file_column` is a column of `captions`, and there is none: leave it out")
        return self
