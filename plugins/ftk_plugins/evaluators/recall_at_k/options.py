"""The options of the evaluator `recall_at_k`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ftk import Options
from ftk_plugins.evaluators.chosen import each_once


class RecallAtKOptions(Options):
    """What a recipe may say about `recall_at_k`."""

    ks: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(1, 5, 10), min_length=1, description="Among how many of the nearest the right one is looked for."
    )
    directions: tuple[Literal["forward", "backward"], ...] = Field(
        default=("forward",),
        min_length=1,
        description="What is looked for by what: forward, the positive by the anchor (the image by the text); "
        "backward, the other way round.",
    )

    _each_once = field_validator("ks", "directions")(each_once)

    def metrics(self) -> tuple[str, ...]:
        names = (*(f"recall_at_{k}" for k in self.ks), "mrr")
        return tuple(PREFIXES[direction] + name for direction in self.directions for name in names)


PREFIXES = {"forward": "", "backward": "backward_"}
"""How the names of a direction's metrics begin."""
