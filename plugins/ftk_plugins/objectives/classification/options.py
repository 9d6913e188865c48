"""The options of the objective `classification`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk import Options
from ftk_plugins.objectives.label_options import (
    FROM_ALL_CLASSES,
    ClassWeights,
    HeadName,
    Incremental,
    Taught,
    check_incremental,
    check_labels,
)


class ClassificationOptions(Options):
    """What a recipe may say about `classification`."""

    text: str = Field(default="text", min_length=1, description="The column that holds the text.")
    pair: str | None = Field(
        default=None,
        min_length=1,
        description="The column of a second text, read after the first; unset: none.",
    )
    label: str = Field(default="label", min_length=1, description="The column that holds what is right.")
    kind: Literal["single", "multiple", "regression"] = Field(
        default="single",
        description="What a row has in `label`: one label, a list of any number of them, or a number (or several).",
    )
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="The names of the labels, or of the numbers, in the order of the model's outputs; unset: as the "
        "training rows tell.",
    )
    head: HeadName = ""
    incremental: Incremental = False
    taught: Taught = None
    class_weights: ClassWeights = Field(
        default=None,
        description="How much a label's rows count in the loss, by its name, 1 where none is given; `balanced`: "
        "the rarer, the more.",
    )
    max_length: int = Field(
        default=512,
        ge=4,
        description="Most tokens of a row; a longer text (of a pair the longer) is cut at its end.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> ClassificationOptions:
        if self.class_weights is not None and self.kind == "regression":
            raise ValueError('`class_weights` weighs labels, and kind = "regression" has none')
        check_labels(self.labels, self.class_weights, least=2 if self.kind == "single" else 1)
        if self.incremental and self.kind != "single":
            raise ValueError('`incremental` goes with kind = "single": of other kinds no output competes with another')
        check_incremental(self.incremental, self.labels, self.taught, self.class_weights)
        return self

    def growing(self) -> tuple[str, ...]:
        return ("labels",) if self.incremental else ()

    def withheld(self) -> tuple[str, ...]:
        if self.kind == "regression":
            return ("class-predictions", "label-smoothing", "target-logits", "target-listing")
        if self.incremental:
            return ("scalar-predictions", *FROM_ALL_CLASSES)
        return ("scalar-predictions",) if self.kind == "single" else ("scalar-predictions", "target-listing")
