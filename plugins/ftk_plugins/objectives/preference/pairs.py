"""Rows with two answers as two rows with one answer each."""

from __future__ import annotations

from typing import Any

from ftk import UserError
from ftk.parts import Row
from ftk_plugins.objectives.tokens import columns_of

_MEND = "rename columns with the data set's `columns`, or remove the row"


def as_instructions(row: Row) -> tuple[Row, Row]:
    """The row with its chosen answer, and with its rejected one, as `instruction` reads rows.

    The answers are texts after a `prompt` or an `instruction`, or lists of messages: whole conversations, or what
    follows the messages in `prompt`.

    Raises:
        UserError: a column is missing or empty, or of another form than the others.
    """
    return _with_answer(row, "chosen"), _with_answer(row, "rejected")


def _with_answer(row: Row, side: str) -> Row:
    answer: Any = row.get(side)
    if not answer:
        raise UserError(f"there is no answer in column `{side}`; the row has {columns_of(row)}", _MEND)
    prompt = row.get("prompt")
    if isinstance(answer, list):
        if prompt is not None and not isinstance(prompt, list):
            raise UserError(
                f"`{side}` is a list of messages, and `prompt` is not",
                "give the prompt as messages too, or leave it out where both answers are whole conversations",
            )
        return {"messages": [*(prompt or []), *answer]}
    if isinstance(prompt, list):
        raise UserError(f"`prompt` is a list of messages, and `{side}` is not", "give both answers as messages too")
    if prompt is not None:
        return {"prompt": prompt, "completion": answer}
    others = {name: value for name, value in row.items() if name not in ("chosen", "rejected", "output")}
    return {**others, "output": answer}
