"""The options of the objective `image_classification`."""

from __future__ import annotations

from pydantic import Field, field_validator

from ftk import Options


class ImageClassificationOptions(Options):
    """What a recipe may say about `image_classification`."""

    image: str = Field(default="image", min_length=1, description="The column that holds the image.")
    label: str = Field(default="label", min_length=1, description="The column that holds its label.")
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="The names of the labels, in the order of the model's outputs; unset: as the training rows tell.",
    )

    @field_validator("labels")
    @classmethod
    def _each_once(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and len(set(labels)) < len(labels):
            raise ValueError("names one label twice")
        return labels
