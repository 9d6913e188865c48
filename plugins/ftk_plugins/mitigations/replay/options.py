"""The options of `replay`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ftk import Options


class ReplayOptions(Options):
    """How much is replayed, and of what."""

    share: float = Field(default=0.1, gt=0, lt=1, description="Share of the final training mix that is replayed rows.")
    buffer_size: int | Literal["all"] = Field(
        default=500,
        description='Rows kept of each earlier task, drawn at random once; "all" keeps every row.',
    )
    by: Literal["task", "rows"] = Field(
        default="task",
        description="How tasks divide the share: evenly, or in proportion to the rows kept of each.",
    )
    tasks: tuple[str, ...] = Field(
        default=(),
        description="Earlier tasks that are replayed, by the names of their stages, or `retain`; all where none is "
        "named.",
    )

    @field_validator("buffer_size")
    @classmethod
    def _some_rows(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError('must be 1 or more, or "all"')
        return value

    def earlier_tasks(self) -> tuple[str, ...]:
        return self.tasks

    def data_share(self) -> float:
        return self.share
