"""The options of `mas`."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.mitigations.pull_options import WeightedPullOptions


class MasOptions(WeightedPullOptions):
    """How the sensitivity of the outputs is measured, and how strongly it holds."""

    samples: int = Field(
        default=500,
        gt=0,
        description="Rows of each earlier task whose outputs are differentiated; all rows where it has fewer.",
    )
    batch_size: int | None = Field(
        default=None, gt=0, description="Rows per pass of the measurement; by default the stage's micro-batch."
    )
