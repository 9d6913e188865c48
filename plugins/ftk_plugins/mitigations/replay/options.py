"""The options of `replay`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ftk import Options
from ftk_plugins.mitigations.share_options import Share, even_share

LOOKS = ("loss", "herding")
"""Choices for which the model looks at rows."""


class ReplayOptions(Options):
    """How much is replayed, and of what."""

    share: Share = Field(
        default=0.1,
        description="Share of the final training mix that is replayed rows; or how it changes over the stage, as in "
        "{ start = 0.3, end = 0.05, over = 0.5 }.",
    )
    buffer_size: int | Literal["all"] = Field(
        default=500,
        description='Rows kept of each earlier task, chosen once; "all" keeps every row.',
    )
    memory: int | None = Field(
        default=None,
        gt=0,
        description="Rows kept of all earlier tasks together, in place of `buffer_size`: each task's part shrinks as "
        "tasks come.",
    )
    choice: Literal["random", "reservoir", "balanced", "loss", "herding"] = Field(
        default="random",
        description="Which rows of a task are kept: any; by reservoir sampling over the rows of all tasks; as many of "
        "each class; by the model's loss; or those whose mean feature stays nearest to that of all.",
    )
    prefer: Literal["highest", "lowest", "median"] = Field(
        default="median", description="With choice = loss: the loss that rows are kept for, or come nearest to."
    )
    candidates: int | Literal["all"] = Field(
        default=5000,
        description="With choice = loss or herding: rows of a task that the model looks at, drawn at random.",
    )
    class_column: str | None = Field(
        default=None,
        min_length=1,
        description="With choice = balanced or herding: the column that says which class a row is of; unset: the label "
        "that the objective learns.",
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

    @field_validator("buffer_size", "candidates")
    @classmethod
    def _some_rows(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError('must be 1 or more, or "all"')
        return value

    @model_validator(mode="after")
    def _acts(self) -> ReplayOptions:
        idle: dict[str, tuple[Any, str]] = {
            "buffer_size": (self.memory is None, "`memory` says how many rows are kept of all tasks; leave one out"),
            "prefer": (self.choice == "loss", 'it is for choice = "loss"'),
            "candidates": (self.choice in LOOKS, 'it is for choice = "loss" or "herding"'),
            "class_column": (self.choice in ("balanced", "herding"), 'it is for choice = "balanced" or "herding"'),
        }
        for name, (acts, why) in idle.items():
            # A run's folder writes all options down: what says no more than the default was not asked for.
            if not acts and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: {why}")
        if self.choice == "reservoir" and self.memory is None:
            raise ValueError('choice = "reservoir" is over the rows of all tasks: say how many are kept, memory = 1000')
        return self

    def earlier_tasks(self) -> tuple[str, ...]:
        return self.tasks

    def data_share(self) -> float:
        return even_share(self.share)
