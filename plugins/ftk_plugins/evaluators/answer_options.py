"""The options that all evaluators of generated answers share."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class AnswerOptions(Options):
    """How answers are generated, and which differences between texts do not count."""

    max_new_tokens: int = Field(default=32, gt=0, description="Tokens after which an answer is cut off.")
    batch_size: int = Field(
        default=64, gt=0, description="Rows answered together on one device; lower it where memory is short."
    )
    fold_case: bool = Field(default=True, description="Take upper and lower case for the same.")
    fold_width: bool = Field(
        default=True,
        description="Take forms of one character for the same (Unicode NFKC), as in `Ａ` and `A`.",
    )
