"""The options of the objective `image_classification`."""

from __future__ import annotations

from pydantic import Field, model_validator

from ftk_plugins.objectives.label_options import (
    FROM_ALL_CLASSES,
    HeadName,
    Incremental,
    Taught,
    check_incremental,
    check_labels,
)
from ftk_plugins.objectives.picture_options import PictureOptions


class ImageClassificationOptions(PictureOptions):
    """What a recipe may say about `image_classification`."""

    label: str = Field(default="label", min_length=1, description="The column that holds its label.")
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="The names of the labels, in the order of the model's outputs; unset: as the training rows tell.",
    )
    head: HeadName = ""
    incremental: Incremental = False
    taught: Taught = None

    mixup: float = Field(
        default=0.0,
        ge=0,
        description="In training, mix each image and its label with another row's, by a share from Beta(mixup, mixup); "
        "0: never; usual are 0.1 to 0.4.",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description="In training, put a rectangle of another row's image into each, by a share from "
        "Beta(cutmix, cutmix), and that share of its label; 0: never; usual is 1. Beside `mixup` a coin decides.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> ImageClassificationOptions:
        check_labels(self.labels, None, least=2)
        check_incremental(self.incremental, self.labels, self.taught)
        return self

    def growing(self) -> tuple[str, ...]:
        return ("labels",) if self.incremental else ()

    def withheld(self) -> tuple[str, ...]:
        return FROM_ALL_CLASSES if self.incremental else ()
