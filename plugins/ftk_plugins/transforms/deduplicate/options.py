"""The options of the transform `deduplicate`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from ftk_plugins.transforms.column_options import ColumnOptions

OF_NEAR = ("threshold", "ngram", "permutations")
"""The options that only `method = "near"` has."""


class DeduplicateOptions(ColumnOptions):
    """What a recipe may say about `deduplicate`."""

    method: Literal["exact", "near"] = Field(
        default="exact",
        description="exact: rows with the same texts but for capitals and white space; near: also rows that share most "
        "runs of words.",
    )
    threshold: float = Field(
        default=0.8,
        gt=0,
        lt=1,
        description="For near: the Jaccard similarity of two rows' runs of words from which they are one.",
    )
    ngram: int = Field(default=5, gt=0, description="For near: words in a run.")
    permutations: int = Field(
        default=128, ge=16, le=4096, description="For near: hashes by which candidates are found; more miss fewer."
    )

    @model_validator(mode="after")
    def _can_act(self) -> Self:
        if self.method == "exact":
            for name in OF_NEAR:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f'`{name}` acts with method = "near" alone')
        elif find_spec("datasketch") is None:
            raise ValueError(
                'method = "near" needs the package datasketch: pip install "finetune-toolkit[deduplicate]"'
            )
        return self
