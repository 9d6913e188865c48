"""The options of the objective `instruction`."""

from __future__ import annotations

import re
from string import Formatter
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ftk import Options

_ANSWERS = ("output", "completion", "messages")


class DialogueOptions(Options):
    """How a row becomes a prompt and an answer, and how long they may be together."""

    template: str | None = Field(
        default=None,
        description="The prompt of a row, with its columns in braces, as in `Q: {instruction}\\nA:`; "
        "by default the model's chat template, or the Alpaca headings.",
    )
    chat_template: Literal["auto", "never"] = Field(
        default="auto", description="Whether Alpaca rows use the model's chat template where it has one."
    )
    system: str | None = Field(
        default=None, min_length=1, description="A system prompt for every row that brings none of its own."
    )
    max_length: int = Field(default=1024, ge=2, description="Most tokens of a row, prompt and answer together.")
    long_rows: Literal["error", "cut_start", "cut_end"] = Field(
        default="error",
        description="What happens to a longer row: the run is refused, the prompt loses its beginning, "
        "or the answer its end.",
    )

    @field_validator("template")
    @classmethod
    def _known_placeholders(cls, template: str | None) -> str | None:
        if template is not None and not placeholders(template):
            raise ValueError("the template names no column; write one in braces, as in `{instruction}`")
        return template


class InstructionOptions(DialogueOptions):
    """What a recipe may say about `instruction`."""

    format: Literal["auto", "alpaca", "prompt_completion", "messages"] = Field(
        default="auto",
        description="The rows' columns: `instruction`, `input`, `output`; `prompt`, `completion`; or "
        "`messages`. auto: whichever of these a row has.",
    )
    loss_on: Literal["answer", "all"] = Field(
        default="answer",
        description="Which tokens are learned: those of the answers, or those of the prompts too.",
    )
    packing: bool = Field(
        default=False,
        description="Join short rows into rows of up to `max_length` tokens; they do not see each other.",
    )
    router_loss: float | None = Field(
        default=None,
        ge=0,
        description="Weight of the balancing loss of a mixture of experts, in training; unset: 0.001 if there is one.",
    )

    @model_validator(mode="after")
    def _template_for_columns(self) -> InstructionOptions:
        if self.template is not None and self.format == "messages":
            raise ValueError("`template` is for rows of columns; chat messages use the model's chat template")
        if self.chat_template == "never" and self.format == "messages":
            raise ValueError("chat messages need the model's chat template; leave out `chat_template`")
        return self


def placeholders(template: str) -> tuple[str, ...]:
    """The columns that a template names, in order.

    Raises:
        ValueError: a brace is not closed, a placeholder is more than a column's name, or names the answer.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}; write `{{{{` and `}}}}` for braces that are text") from None
    names = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if form or conversion or not re.fullmatch(r"[^\W\d][\w -]*", name):
            written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise ValueError(
                f"`{{{written}}}` is no placeholder; write a column's name in braces, as in `{{instruction}}`"
            )
        if name in _ANSWERS:
            raise ValueError(f"`{{{name}}}` holds the answer; the template ends where the answer begins")
        names.append(name)
    return tuple(names)
