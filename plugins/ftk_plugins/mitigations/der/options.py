"""The options of `der`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk import Options
from ftk_plugins.mitigations.share_options import Share, even_share


class DerOptions(Options):
    """What is kept of each earlier task, and how its rows' two losses weigh."""

    share: Share = Field(
        default=0.1,
        description="Share of the final training mix that is rows of the memory; or how it changes over the stage, as "
        "in { start = 0.3, end = 0.05, over = 0.5 }.",
    )
    weight: float = Field(
        default=0.5, gt=0, description="Weight of the distance from the kept logits: the paper's alpha."
    )
    label_weight: float = Field(
        default=0.5, ge=0, description="Weight of the rows' own loss: the paper's beta, DER++; 0: DER."
    )
    buffer_size: int | Literal["all"] = Field(
        default=500, description='Rows kept of each earlier task, long ones as windows; "all" keeps every row.'
    )
    memory: int | None = Field(
        default=None,
        gt=0,
        description="Rows kept of all earlier tasks together, in place of `buffer_size`: each task's part shrinks as "
        "tasks come.",
    )
    choice: Literal["random", "reservoir", "balanced"] = Field(
        default="random",
        description="Which rows of a task are kept: any; by reservoir sampling over the rows of all tasks, as in the "
        "paper; or as many of each label.",
    )
    when: Literal["end", "along"] = Field(
        default="end",
        description="When the model is asked about a row of a task: when the stage has taught it; or along the stage, "
        "as in the paper, each row after a step drawn at random.",
    )
    top_k: int = Field(
        default=64, gt=0, description="Likeliest tokens that are kept of a vocabulary at each target, of labels all."
    )
    tasks: tuple[str, ...] = Field(
        default=(),
        description="Earlier tasks that are kept, by the names of their stages, or `retain`; all where none is named.",
    )

    @model_validator(mode="after")
    def _acts(self) -> DerOptions:
        if isinstance(self.buffer_size, int) and self.buffer_size < 1:
            raise ValueError('buffer_size must be 1 or more, or "all"')
        if self.memory is not None and self.buffer_size != type(self).model_fields["buffer_size"].default:
            raise ValueError("buffer_size: `memory` says how many rows are kept of all tasks; leave one out")
        if self.when == "along" and self.tasks:
            raise ValueError('when = "along" asks about what a stage teaches, and `tasks` name what came before it')
        if self.choice == "reservoir" and self.memory is None:
            raise ValueError('choice = "reservoir" is over the rows of all tasks: say how many are kept, memory = 1000')
        return self

    def more_needs(self) -> tuple[str, ...]:
        earlier = ("earlier-data",) if self.when == "end" else ()
        return earlier if self.tasks else (*earlier, "earlier-target-logits")

    def earlier_tasks(self) -> tuple[str, ...]:
        return self.tasks

    def data_share(self) -> float:
        return even_share(self.share)
