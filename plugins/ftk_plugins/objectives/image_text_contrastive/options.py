"""The options of the objective `image_text_contrastive`."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.objectives.picture_options import PictureOptions


class ImageTextContrastiveOptions(PictureOptions):
    """What a recipe may say about `image_text_contrastive`."""

    text: str = Field(default="text", min_length=1, description="The column that holds the text.")
    max_length: int = Field(default=77, ge=4, description="Most tokens of a text; a longer one is cut at its end.")
