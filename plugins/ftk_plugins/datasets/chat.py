"""Chat rows under one name and in one shape: lists of messages with a `role` and `content`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Value

from ftk import UserError
from ftk_plugins.datasets.quiet import quiet

CONVERSATIONS = "conversations"
MESSAGES = "messages"
SYSTEM = "system"
"""A column that ShareGPT's rows may have beside their chat: what a system message would say."""

ROLES = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "function_call": "assistant",
    "system": "system",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
}  # fmt: skip
"""The role of a message by what ShareGPT's rows have under `from`."""

SHAREGPT, OPENAI = {"from", "value"}, {"role", "content"}


def as_messages(dataset: Dataset, place: str) -> Dataset:
    """Rows with chats in the column `messages`, in the shape of OpenAI's; others as they are.

    The column `conversations`, or `messages` itself, is converted where its entries have `from` and `value`
    (ShareGPT), and a column `system` of text beside it becomes the first message; `conversations` with `role` and
    `content` is renamed. Nothing is done where both columns are there.

    Raises:
        UserError: a message lacks a known role, or text; names the row and the message.
    """
    found = [name for name in (CONVERSATIONS, MESSAGES) if name in dataset.column_names]
    if len(found) != 1:
        return dataset
    [name] = found
    keys = _keys(dataset, name)
    if keys >= OPENAI:
        return dataset.rename_column(name, MESSAGES) if name != MESSAGES else dataset
    if not keys >= SHAREGPT:
        return dataset
    read = [name]
    if getattr(dataset.features.get(SYSTEM), "dtype", None) in ("string", "large_string"):
        read.append(SYSTEM)
    chats = [{"role": Value("string"), "content": Value("string")}]
    features = Features({k: v for k, v in dataset.features.items() if k not in read} | {MESSAGES: chats})
    with quiet():
        return dataset.map(
            _converted, batched=True, with_indices=True, input_columns=read, remove_columns=read,
            features=features, fn_kwargs={"place": place, "column": name},
        )  # fmt: skip


def _keys(dataset: Dataset, name: str) -> set[str]:
    """The keys of the tables that a column's lists hold; empty where it holds anything else."""
    kind = dataset.features.arrow_schema.field(name).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return set()
    return {field.name for field in kind.value_type}


def _converted(chats: list[Any], *read: list[Any], place: str, column: str) -> dict[str, list[Any]]:
    """Chats with their `system` texts, if there is such a column, and last the numbers of their rows."""
    *systems, rows = read
    made = []
    for row, chat, *system in zip(rows, chats, *systems, strict=True):
        where = f"{place}, row {row + 1}, message {{}} of `{column}`"
        messages = [_message(message, where.format(n)) for n, message in enumerate(chat or (), 1)]
        if not messages or messages[0]["role"] != SYSTEM:
            messages[:0] = [{"role": SYSTEM, "content": text} for text in system if text and text.strip()]
        made.append(messages)
    return {MESSAGES: made}


def _message(message: Any, where: str) -> dict[str, str]:
    said, text = message["from"], message["value"]
    role = ROLES.get(str(said).strip().lower())
    if role is None:
        raise UserError(
            f"{where} is from {said!r}, and no role goes with that",
            f"write human, gpt, system or tool; known are {', '.join(ROLES)}",
        )
    if not isinstance(text, str):
        raise UserError(f"{where} ({said}) has no text in `value`", "write it, or remove the row")
    return {"role": role, "content": text}
