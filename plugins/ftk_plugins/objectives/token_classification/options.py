"""The options of the objective `token_classification`."""

from __future__ import annotations

from pydantic import Field, model_validator

from ftk import Options
from ftk_plugins.objectives.label_options import ClassWeights, HeadName, check_labels


class TokenClassificationOptions(Options):
    """What a recipe may say about `token_classification`."""

    tokens: str = Field(default="tokens", min_length=1, description="The column that holds a list of words.")
    tags: str = Field(default="tags", min_length=1, description="The column that holds a list of their tags.")
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="The names of the tags in the order of the model's outputs; unset: as the training rows tell.",
    )
    head: HeadName = ""
    class_weights: ClassWeights = Field(
        default=None,
        description="How much a tag's words count in the loss, by its name, 1 where none is given; `balanced`: "
        "the rarer, the more.",
    )
    label_all: bool = Field(
        default=False,
        description="Learn a word's tag at all its sub-words; false: at the first. Predicted is at the first.",
    )
    separator: str = Field(
        default=" ",
        description="What stands between two words where a text is written out; empty for a script without spaces.",
    )
    max_length: int = Field(
        default=512,
        ge=4,
        description="Most tokens of a row; of a longer one the last words are neither learned nor measured.",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> TokenClassificationOptions:
        check_labels(self.labels, self.class_weights, least=2)
        return self
