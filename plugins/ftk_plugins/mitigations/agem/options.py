"""The options of `agem`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class AgemOptions(Options):
    """What is kept of earlier tasks, how much of it a step looks at, and what a step must not do."""

    buffer_size: int = Field(default=500, gt=0, description="Rows kept of each earlier task, drawn at random once.")
    rows_per_step: int = Field(
        default=32,
        gt=0,
        description='Kept rows that a step goes through beside its own: of all tasks together, or with "each" of every '
        "task.",
    )
    constraint: Literal["average", "each"] = Field(
        default="average",
        description="What a step must not raise: the mean of the earlier tasks' losses (A-GEM), or each of them (GEM).",
    )
