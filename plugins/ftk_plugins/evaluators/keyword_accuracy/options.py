"""The options of the evaluator `keyword_accuracy`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk_plugins.evaluators.answer_options import AnswerOptions


class KeywordAccuracyOptions(AnswerOptions):
    """What a recipe may say about `keyword_accuracy`."""

    column: str = Field(
        default="keywords",
        min_length=1,
        description="Column with a row's keywords: a text, or a list of texts.",
    )
    match: Literal["all", "any"] = Field(
        default="all",
        description="How many of a row's keywords its answer must hold: `all`, or `any` one of them.",
    )
    boundary: bool = Field(
        default=True,
        description="Find a keyword only where no letter or digit goes on beside it: `7` is not in `17`.",
    )

    def metrics(self) -> tuple[str, ...]:
        return ("keyword_accuracy",)
