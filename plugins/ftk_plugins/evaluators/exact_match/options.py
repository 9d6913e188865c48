"""The options of the evaluator `exact_match`."""

from __future__ import annotations

from pydantic import Field

from ftk_plugins.evaluators.answer_options import AnswerOptions


class ExactMatchOptions(AnswerOptions):
    """What a recipe may say about `exact_match`."""

    fold_case: bool = Field(default=False, description="Take upper and lower case for the same.")
    fold_width: bool = Field(
        default=False,
        description="Take forms of one character for the same (Unicode NFKC), as in `Ａ` and `A`.",
    )

    def metrics(self) -> tuple[str, ...]:
        return ("exact_match",)
