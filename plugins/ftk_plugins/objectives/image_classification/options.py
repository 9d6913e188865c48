"""The options of the objective `image_classification`."""

from __future__ import annotations

from pydantic import Field, model_validator

from ftk import Options
from ftk_plugins.objectives.label_options import check_labels


class ImageClassificationOptions(Options):
    """What a recipe may say about `image_classification`."""

    image: str = Field(default="image", min_length=1, description="The column that holds the image.")
    label: str = Field(default="label", min_length=1, description="The column that holds its label.")
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="The names of the labels, in the order of the model's outputs; unset: as the training rows tell.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> ImageClassificationOptions:
        check_labels(self.labels, None, least=2)
        return self
