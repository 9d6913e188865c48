"""The share of the training mix that a mitigation's rows take: a number, or how it changes over the stage."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from ftk import Options


class ChangingShare(Options):
    """A share that goes in a straight line from one value to another, and then stays."""

    start: float = Field(ge=0, lt=1, description="Share of the training mix at the stage's beginning.")
    end: float = Field(ge=0, lt=1, description="Share from where it no longer changes.")
    over: float = Field(default=1.0, gt=0, le=1, description="How much of the stage it changes in.")

    @model_validator(mode="after")
    def _some(self) -> ChangingShare:
        if self.start == self.end:
            raise ValueError("start and end are one: write the share as a number")
        return self


Share = Annotated[float, Field(gt=0, lt=1)] | ChangingShare
"""What a recipe writes: ``share = 0.1`` or ``share = { start = 0.3, end = 0.05, over = 0.5 }``."""


def even_share(share: float | ChangingShare) -> float:
    """The constant share that mixes in as many rows over the stage."""
    if not isinstance(share, ChangingShare):
        return share
    first, last = 1 - share.start, 1 - share.end
    # Rows beside one of the stage's own: the mean of s / (1 − s) along the line.
    line = math.log(first / last) / (share.end - share.start) - 1
    mixed = share.over * line + (1 - share.over) * share.end / last
    return mixed / (1 + mixed)
