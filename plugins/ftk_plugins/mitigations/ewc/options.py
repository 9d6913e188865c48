"""The options of `ewc`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk_plugins.mitigations.pull_options import STRENGTH, WeightedPullOptions


class EwcOptions(WeightedPullOptions):
    """How the Fisher information is estimated, and how strongly it holds."""

    allowed_loss: float | None = Field(
        default=None,
        gt=0,
        description="By how much the loss of any earlier task may rise in a stage, in nats for each target; the "
        "strength is then found. Unset: `strength` holds.",
    )
    samples: int = Field(
        default=500,
        gt=0,
        description="Rows of each earlier task whose gradients are squared; all rows where it has fewer.",
    )
    fisher: Literal["diagonal", "factored", "kfac"] = Field(
        default="diagonal",
        description="In what form it is held: a number for each weight, one for each row and column of a matrix, "
        "or Kronecker factors of each linear layer.",
    )
    labels: Literal["empirical", "sample", "exact"] = Field(
        default="empirical",
        description="Targets: the rows' own (empirical Fisher), or drawn from the model (true Fisher), or every one "
        "that a row can have, by its probability.",
    )
    anchors: Literal["online", "separate"] = Field(
        default="online",
        description="Where earlier tasks are held: all at the stage's start, or each where it was learned.",
    )
    fisher_batch_size: int | None = Field(
        default=None, gt=0, description="Rows per pass of the estimate; by default the stage's micro-batch."
    )

    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="In what type it is held where it has more than one dimension; bfloat16 takes half the memory.",
    )

    @model_validator(mode="after")
    def _found_or_given(self) -> EwcOptions:
        if self.allowed_loss is not None and self.strength != STRENGTH:
            raise ValueError("`allowed_loss` finds the strength: leave out `strength`, or `allowed_loss`")
        return self

    def more_needs(self) -> tuple[str, ...]:
        needs = {"sample": ("earlier-target-sampling",), "exact": ("earlier-target-listing",)}
        return needs.get(self.labels, ()) + (() if self.allowed_loss is None else ("weight-scale",))

    def withheld(self) -> tuple[str, ...]:
        return () if self.allowed_loss is None else ("strength-knob",)
