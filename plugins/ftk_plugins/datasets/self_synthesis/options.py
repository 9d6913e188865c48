"""The options of the data set `self_synthesis`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ftk import Options


class SelfSynthesisOptions(Options):
    """What a recipe may say about `self_synthesis`."""

    rows: int = Field(default=500, gt=0, description="How many rows are kept.")
    form: Literal["text", "chat"] = Field(
        default="text",
        description="What a row is. text: a text in the column `text`; chat: a question in `instruction`, which the "
        "model writes in the user's turn of its chat template, and its answer in `output`.",
    )
    prompts: list[str] = Field(
        default=[],
        description="How texts begin, or with `chat` the questions, each in turn; empty: the model begins by itself.",
    )
    max_new_tokens: int = Field(
        default=128, gt=0, description="Tokens after which a text, or with `chat` a question or an answer, is cut off."
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Divides the logits before a token is drawn: below 1, likely tokens come more."
    )
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Draw from the likeliest tokens that have this probability together (nucleus sampling); 1: all.",
    )
    top_k: int | None = Field(
        default=None, gt=0, description="Draw from no more than this many of the likeliest tokens; unset: from all."
    )
    drop_lowest: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of what was written that is left out for the lowest perplexity: repetition, set phrases.",
    )
    drop_highest: float = Field(
        default=0.1, ge=0, lt=1, description="Share left out for the highest perplexity: texts that went astray."
    )
    batch_size: int = Field(default=32, gt=0, description="Rows written together; lower it where memory is short.")
    seed: int = Field(default=0, description="Seed of the draws; another seed gives other rows, as for testing.")

    @field_validator("prompts")
    @classmethod
    def _something_to_begin_with(cls, prompts: list[str]) -> list[str]:
        if not all(prompt.strip() for prompt in prompts):
            raise ValueError("one of them is empty; leave it out")
        return prompts

    @model_validator(mode="after")
    def _something_left(self) -> Self:
        if self.drop_lowest + self.drop_highest >= 1:
            raise ValueError("`drop_lowest` and `drop_highest` leave no row")
        return self
