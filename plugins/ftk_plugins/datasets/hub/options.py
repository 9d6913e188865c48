"""The options of the data set `hub`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

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
    data_files: list[str] = Field(
        default=[],
        description="Files of the data set to read, or patterns such as `data/2024-*.parquet`: these and no others "
        "are fetched, and are its split `train`; empty: all.",
    )
    shards: int | None = Field(
        default=None, gt=0, description="Fetch no more than this many files of each split, the first; unset: all."
    )
    stream: bool = Field(
        default=False,
        description="Fetch no more than the first `limit` rows of a split, however large its files are. Kept where "
        "`revision` is a commit's 40 digits.",
    )

    @model_validator(mode="after")
    def _streamed(self) -> Self:
        if self.stream and self.limit is None:
            raise ValueError("`stream` fetches the first rows: say how many with `limit`")
        if self.stream and self.split and "[" in self.split:
            raise ValueError(
                "`stream` takes the first rows of a split, and `split` names a part: leave out one of them"
            )
        return self

    def withheld(self) -> tuple[str, ...]:
        """Undivided, it may have test rows on the hub: only reading it can tell."""
        undivided = self.split is None and not self.fractions
        return tuple(name for name in super().withheld() if not (undivided and name == "test-data"))
