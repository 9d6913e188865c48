"""The options of the objective `multitask`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftk import Options

RATE = 0.01
"""Of Adam over the log-variances: an hundredth of a nat a step at most."""


class Member(BaseModel):
    """One of the tasks: an objective's table, and how much its loss weighs."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    weight: float | None = Field(
        default=None, gt=0, strict=True,
        description='What its mean loss is multiplied by, with weighting = "fixed"; unset: 1.',
    )  # fmt: skip


class MultitaskOptions(Options):
    """What a recipe may say about `multitask`."""

    tasks: dict[str, Member] = Field(
        min_length=2,
        description="The objectives by name, each a table with its own `use` and options, and perhaps a `weight`. "
        "`data.train` has a part of the same name for each.",
        examples=[{"topic": {"use": "classification"}, "words": {"use": "masked_lm"}}],
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        default="fixed",
        description="How losses are weighed: by each one's `weight`, or by a variance of each that is learned beside "
        "the model.",
    )
    weight_learning_rate: float = Field(
        default=RATE, gt=0,
        description='Learning rate (of Adam) of the logarithms of the variances, with weighting = "uncertainty".',
    )  # fmt: skip

    @model_validator(mode="after")
    def _act(self) -> Self:
        weighed = [name for name, member in self.tasks.items() if member.weight is not None]
        if self.weighting == "uncertainty" and weighed:
            raise ValueError(f'task `{weighed[0]}` has a `weight`, and weighting = "uncertainty" learns it')
        if self.weighting == "fixed" and self.weight_learning_rate != RATE:
            raise ValueError('`weight_learning_rate` changes nothing: weighting = "fixed" learns no weights')
        return self

    def objectives(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: member.model_extra or {} for name, member in self.tasks.items()}
