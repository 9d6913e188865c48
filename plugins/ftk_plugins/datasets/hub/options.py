"""The options of the data set `hub`."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.datasets.row_options import RowOptions


class HubOptions(RowOptions):
    """What a recipe may say about `hub`."""

    path: str = Field(
        min_length=1,
        description="The data set's id, such as `tatsu-lab/alpaca`, or a folder that holds a copy of it.",
    )
    config: str | None = Field(
        default=None, min_length=1, description="Which of its configurations, where it has several."
    )
    split: str | None = Field(
        default=None,
        min_length=1,
        description="Which of its splits, or a part as in `train[:10%]`; unset: the one that goes with the "
        "role, or `train` where a fraction divides it.",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="A branch, tag or commit; unset: the newest. Name one to repeat a run.",
    )

    def withheld(self) -> tuple[str, ...]:
        """Undivided, it may have test rows on the hub: only reading it can tell."""
        undivided = self.split is None and not self.fractions
        return tuple(name for name in super().withheld() if not (undivided and name == "test-data"))
