"""The options of the evaluator `multiple_choice`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ftk import Options
from ftk_plugins.objectives.instruction.options import placeholders

QUESTION, CHOICES, ANSWER = ("question", "ctx"), ("choices", "endings"), ("answer", "answerKey", "label")
"""The columns that are looked for where the recipe names none: those of MMLU, ARC and HellaSwag."""


SEPARATOR = "\n\n"
"""What stands after an example where the recipe does not say."""


class MultipleChoiceOptions(Options):
    """What a recipe may say about `multiple_choice`."""

    data: dict[str, Any] | None = Field(
        default=None,
        description="A data set of its own, with its `use` and options, measured once after each stage; "
        "unset: the test rows of each task.",
        examples=[{"use": "files", "path": "mmlu.jsonl"}],
    )
    while_training: bool = Field(
        default=False,
        description="With `data`: measure in the evaluations during a stage too, on the same rows.",
    )
    question: str | None = Field(
        default=None, min_length=1, description="Column with the question; unset: `question`, or `ctx` as in HellaSwag."
    )
    choices: str | None = Field(
        default=None,
        min_length=1,
        description="Column with the choices: a list of texts, or a table of `text` and `label` as in ARC; "
        "unset: `choices`, or `endings`.",
    )
    answer: str | None = Field(
        default=None,
        min_length=1,
        description="Column that tells the right choice; unset: `answer`, `answerKey` or `label`.",
    )
    answer_is: Literal["auto", "index", "number", "letter", "text"] = Field(
        default="auto",
        description="How it tells: its place from 0 or from 1, its letter or label, or its text; auto: what it can "
        "only be, a whole number being a place from 0.",
    )
    template: str | None = Field(
        default=None,
        description="The prompt, with columns in braces; `{question}` is the question, `{choices}` the choices, "
        "lettered, one a line. Unset: `Question: {question}\\nAnswer:`, of a `ctx` the text alone, "
        "and for letters `{question}\\n{choices}\\nAnswer:`.",
    )
    scored: Literal["text", "letter"] = Field(
        default="text", description="What follows the prompt and is scored: a choice's text, or its letter as in MMLU."
    )
    separator: str = Field(default=" ", description="What stands between the prompt and a choice.")
    shots: int = Field(default=0, ge=0, description="Examples with their answers before each question.")
    shots_from: dict[str, Any] | None = Field(
        default=None,
        description="The data set that examples are drawn from; unset: the other rows that are measured.",
        examples=[{"use": "files", "path": "dev.jsonl"}],
    )
    shots_separator: str = Field(default=SEPARATOR, description="What stands after each example.")
    length: Literal["characters", "bytes", "tokens"] = Field(
        default="characters", description="What log-likelihoods are divided by for `choice_accuracy_norm`."
    )
    batch_size: int = Field(
        default=32, gt=0, description="Choices scored together on one device; lower it where memory is short."
    )

    @model_validator(mode="after")
    def _can_act(self) -> Self:
        if self.while_training and self.data is None:
            raise ValueError("`while_training` is for `data`: a task's own validation rows are measured without it")
        if self.shots_from is not None and not self.shots:
            raise ValueError("`shots_from` gives examples, and `shots` asks for none: write their number")
        if self.shots_separator != SEPARATOR and not self.shots:
            raise ValueError("`shots_separator` stands after examples, and `shots` asks for none: write their number")
        if self.scored == "letter" and self.length != "characters":
            raise ValueError("`length` changes nothing where letters are scored: they are all as long")
        if self.template is not None:
            self._check_template(placeholders(self.template))
        return self

    def _check_template(self, named: tuple[str, ...]) -> None:
        if not named:
            raise ValueError("the template names no column; write one in braces, as in `{question}`")
        for name in (self.answer,) if self.answer else ANSWER:
            if name in named:
                raise ValueError(f"`{{{name}}}` tells the answer; the template ends where the choice begins")
        if self.scored == "letter" and "choices" not in named:
            raise ValueError("letters mean nothing where the template does not show them: write `{choices}` in it")

    def withheld(self) -> tuple[str, ...]:
        if self.data is None:
            return ("own-rows", "while-training")
        return () if self.while_training else ("while-training",)

    def metrics(self) -> tuple[str, ...]:
        return ("choice_accuracy", "choice_accuracy_norm") if self.scored == "text" else ("choice_accuracy",)

    def data_sets(self) -> Mapping[str, Mapping[str, Any]]:
        given = {"data": self.data, "shots_from": self.shots_from}
        return {name: table for name, table in given.items() if table is not None}
