"""The options by which a stage is watched while it trains: how often it is measured, when it stops, what it keeps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk.plugin.options import Options


class EarlyStopping(Options):
    """When a stage ends before its last step."""

    patience: int = Field(
        default=3, gt=0, description="Evaluations in a row without an improvement after which the stage ends."
    )
    min_delta: float = Field(
        default=0.0, ge=0, description="What the sum that `best_by` describes must gain to count as an improvement."
    )


class Watching(Options):
    """The part of ``[training]`` that measures on validation data while a stage trains, and acts on it."""

    evaluate_every: int = Field(
        default=0,
        ge=0,
        description="Optimizer steps between evaluations of every task so far on validation data; 0: none.",
    )
    best_by: str | None = Field(
        default=None,
        description="The metric that tells the best evaluation; by default the new task's first.",
    )
    retention_weight: float = Field(
        default=0.0,
        ge=0,
        description="How much the mean of that metric over the earlier tasks counts beside the new task's.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="End the stage when it no longer improves: `{ patience = 3, min_delta = 0.0 }`."
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="Which weights the stage leaves: those of its last step or of its best evaluation."
    )

    @property
    def chooses(self) -> bool:
        """Whether something depends on which evaluation is the best."""
        return self.early_stopping is not None or self.keep == "best"

    @model_validator(mode="after")
    def _can_act(self) -> Watching:
        if self.chooses and not self.evaluate_every:
            what = "early_stopping" if self.early_stopping else 'keep = "best"'
            raise ValueError(f"`{what}` goes by evaluations: write evaluate_every, the steps between two of them")
        for name in ("best_by", "retention_weight"):
            if getattr(self, name) and not self.chooses:
                raise ValueError(f'`{name}` tells early_stopping and keep = "best" what is best: write one of them')
        return self
