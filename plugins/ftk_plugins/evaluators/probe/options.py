"""The options of the evaluator `probe`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ftk import Options
from ftk_plugins.evaluators.chosen import each_once


class ProbeOptions(Options):
    """What a recipe may say about `probe`."""

    measures: tuple[Literal["accuracy", "loss"], ...] = Field(
        default=("accuracy",),
        min_length=1,
        description="What is measured on test rows, each a metric of its own: the share that the probe gets right, or "
        "its mean cross entropy in nats.",
    )
    train_rows: int = Field(
        default=2000, gt=1, description="Most of the task's training rows that the probe is fitted to, drawn by `seed`."
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        default="mean",
        description="One feature vector of a row's hidden states: their mean, the first one, or the last one.",
    )
    penalty: float = Field(
        default=1.0,
        gt=0,
        description="Weight of half the squared length of the probe's weights beside the summed loss of its rows.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the choice of training rows.")

    _each_once = field_validator("measures")(each_once)

    def metrics(self) -> tuple[str, ...]:
        return tuple(f"probe_{measure}" for measure in self.measures)
