"""The options that objectives of images share: where the image is, and how training sees it anew each time."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class PictureOptions(Options):
    """The image's column, and what training alone does with the image, in every epoch another way."""

    image: str = Field(default="image", min_length=1, description="The column that holds the image.")
    flip: float = Field(
        default=0.0, ge=0, le=1,
        description="In training, the chance of an image to be mirrored left to right; 0: never.",
    )  # fmt: skip
    crop: float = Field(
        default=1.0, gt=0, le=1,
        description="In training, the least share of the area that a random crop keeps before it is enlarged again; "
        "1: no crop; usual are 0.08 for large images and 0.5 for small ones.",
    )  # fmt: skip
    jitter: float = Field(
        default=0.0, ge=0, le=1,
        description="In training, how far brightness, contrast and saturation may go from 1 to both sides; 0: none; "
        "usual is 0.4.",
    )  # fmt: skip
