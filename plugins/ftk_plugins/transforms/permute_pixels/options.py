"""The options of the transform `permute_pixels`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class PermutePixelsOptions(Options):
    """What a recipe may say about `permute_pixels`."""

    column: str = Field(default="image", min_length=1, description="The column that holds the image.")
    seed: int = Field(default=0, ge=0, description="Seed of the order, the same for every image; 0: as they are.")
