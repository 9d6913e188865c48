"""Chat rows of `files` and `hub`: ShareGPT and OpenAI messages come out alike."""

import json

import pytest
from datasets import Dataset

from ftk import UserError
from ftk_plugins.datasets.chat import as_messages
from ftk_plugins.datasets.files.files import Files
from ftk_plugins.datasets.files.options import FilesOptions
from ftk_plugins.datasets.hub.hub import Hub
from ftk_plugins.datasets.hub.options import HubOptions

SHAREGPT = [
    {"id": 1, "conversations": [
        {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."},
        {"from": "human", "value": "Look it up."}, {"from": "function_call", "value": "find()"},
        {"from": "observation", "value": "found"}, {"from": "GPT", "value": "There."},
    ]},
    {"id": 2, "conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}]},
]  # fmt: skip
OPENAI = [
    {"id": 1, "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."}, {"role": "user", "content": "Look it up."},
        {"role": "assistant", "content": "find()"}, {"role": "tool", "content": "found"},
        {"role": "assistant", "content": "There."},
    ]},
    {"id": 2, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
]  # fmt: skip


def written(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("rows", [SHAREGPT, OPENAI], ids=["sharegpt", "openai"])
def test_both_shapes_come_out_as_messages(tmp_path, rows):
    path = written(tmp_path / "chats" / "train.jsonl", rows)
    assert Files(FilesOptions(path=path)).rows("train").to_list() == OPENAI
    assert Hub(HubOptions(path=str(tmp_path / "chats"))).rows("train").to_list() == OPENAI


def test_a_system_text_beside_a_chat_becomes_its_first_message():
    chat = SHAREGPT[1]["conversations"]
    rows = [{"system": text, "conversations": chat, "tools": "[]"} for text in ("Be kind.", "", None)]
    told = as_messages(Dataset.from_list(rows), "x").to_list()
    greeting = OPENAI[1]["messages"]
    assert told == [
        {"tools": "[]", "messages": [{"role": "system", "content": "Be kind."}, *greeting]},
        *[{"tools": "[]", "messages": greeting}] * 2,
    ]
    own = [{"system": "Be kind.", "conversations": SHAREGPT[0]["conversations"]}]
    assert as_messages(Dataset.from_list(own), "x").to_list() == [{"messages": OPENAI[0]["messages"]}]
    numbered = [{"system": 1, "conversations": chat}]
    assert as_messages(Dataset.from_list(numbered), "x").to_list() == [{"system": 1, "messages": greeting}]


def test_other_names_and_limits(tmp_path):
    renamed = [{"id": row["id"], "chat": row["conversations"]} for row in SHAREGPT]
    options = FilesOptions(path=written(tmp_path / "rows.jsonl", renamed), columns={"messages": "chat"}, limit=1)
    assert Files(options).rows("train").to_list() == OPENAI[:1]
    mixed = [{"conversations": row["messages"]} for row in OPENAI]
    assert as_messages(Dataset.from_list(mixed), "x").to_list() == [{"messages": row["messages"]} for row in OPENAI]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": "a text"}, {"conversations": [{"who": "me"}]}, {"messages": ["a", "b"]}, {"text": "a"},
        {"conversations": SHAREGPT[0]["conversations"], "messages": OPENAI[0]["messages"]},
    ],
)  # fmt: skip
def test_what_is_no_such_chat_stays_as_it_is(row):
    rows = Dataset.from_list([row])
    assert as_messages(rows, "x").to_list() == rows.to_list()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {"from": "alien", "value": "x"},
            r"chats, row 2, message 1 of `conversations` is from 'alien'.*\n.*human, gpt",
        ),
        ({"from": None, "value": "x"}, r"row 2, message 1 .* is from None"),
        ({"from": "gpt", "value": None}, r"row 2, message 1 .*\(gpt\) has no text in `value`\n.*remove the row"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(message, words):
    rows = Dataset.from_list([SHAREGPT[1], {"id": 3, "conversations": [message]}])
    with pytest.raises(UserError, match=words):
        as_messages(rows, "chats")
