"""The options of the evaluator `lm_eval`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from ftk import Options
from ftk_plugins.evaluators.chosen import each_once


class LmEvalOptions(Options):
    """What a recipe may say about `lm_eval`."""

    tasks: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1,
        description="Tasks, groups or tags of the harness by name; `lm-eval ls tasks` lists them.",
        examples=[["hellaswag", "arc_easy"]],
    )
    folder: str | None = Field(
        default=None, min_length=1, description="A folder of YAML files with tasks of your own, looked through first."
    )
    shots: int | None = Field(
        default=None, ge=0, description="Examples before each question; unset: as many as the task says."
    )
    limit: int | None = Field(default=None, gt=0, description="Rows of each task, the first ones; unset: all.")
    chat_template: bool = Field(
        default=False, description="Ask in the model's chat template, examples as turns of the conversation."
    )
    batch_size: int = Field(
        default=16, gt=0, description="Requests in one pass on one device; lower it where memory is short."
    )
    while_training: bool = Field(
        default=False, description="Measure in the evaluations during a stage too, on the same rows."
    )

    _each_once = field_validator("tasks")(each_once)

    @model_validator(mode="after")
    def _installed(self) -> Self:
        if find_spec("lm_eval") is None:
            raise ValueError('needs the package lm_eval: pip install "finetune-toolkit[lm-eval]"')
        return self

    def withheld(self) -> tuple[str, ...]:
        return () if self.while_training else ("while-training",)
