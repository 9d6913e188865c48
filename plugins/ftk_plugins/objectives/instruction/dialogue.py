"""How a row becomes text: what the model reads, what it is to write, and where the one ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from ftk import UserError
from ftk.parts import Row
from ftk_plugins.objectives.instruction.options import InstructionOptions, placeholders
from ftk_plugins.objectives.tokens import columns_of, text_of, texts_in

Message = dict[str, Any]

ALPACA = "### Instruction:\n{instruction}\n\n### Response:\n"
ALPACA_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"

_ANSWER_COLUMN = {"alpaca": "output", "prompt_completion": "completion"}
_MEND = "rename columns with the data set's `columns`, or remove the row"


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model reads, and the answer it is then to write; None where the row leaves that open."""

    read: str
    write: str | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The text of a row: its turns in order, the last with the row's answer.

    Attributes:
        turns: one for a plain row, several for a conversation.
        templated: whether a chat template wrote them, with the special tokens that begin and end a turn.
    """

    turns: tuple[Turn, ...]
    templated: bool


class Reader:
    """Reads rows as the options say."""

    def __init__(self, options: InstructionOptions) -> None:
        self.options = options
        self._placeholders = placeholders(options.template) if options.template else ()

    def dialogue(self, row: Row, processor: Any) -> Dialogue:
        """The text of ``row`` for the model that ``processor`` belongs to.

        Raises:
            UserError: a column is missing or empty, a message malformed, or the template refuses the row.
        """
        form = self._format(row)
        if form == "messages":
            return self._chat(self._messages(row), processor)
        answer = self.answer(row)
        if form == "alpaca" and not self.options.template:
            instruction, extra = self._needed(row, "instruction"), text_of(row, "input") or ""
            if self.options.chat_template == "auto" and processor.chat_template:
                content = f"{instruction}\n\n{extra}" if extra.strip() else instruction
                messages = [{"role": "user", "content": content}]
                if answer is not None:
                    messages.append({"role": "assistant", "content": answer})
                return self._chat(messages, processor)
            heading = ALPACA_WITH_INPUT if extra.strip() else ALPACA
            prompt = heading.format(instruction=instruction, input=extra)
        elif self.options.template:
            prompt = self.options.template.format(**{name: self._filled(row, name) for name in self._placeholders})
        else:
            prompt = self._needed(row, "prompt")
        system = f"{self.options.system}\n\n" if self.options.system else ""
        return Dialogue((Turn(system + prompt, answer),), templated=False)

    def answer(self, row: Row) -> str | None:
        """The row's answer, the last one of a conversation; None where the row has none.

        Raises:
            UserError: it is there and empty.
        """
        form = self._format(row)
        if form == "messages":
            answers = [message["content"] for message in self._messages(row) if message["role"] == "assistant"]
            return answers[-1] if answers else None
        column = _ANSWER_COLUMN[form]
        answer = text_of(row, column)
        if answer is not None and not answer.strip():
            raise UserError(f"the answer in column `{column}` is empty", "fill it in, or remove the row")
        return answer

    def missing_answer(self, row: Row) -> UserError:
        """The error for a row that is to be learned and has no answer."""
        form = self._format(row)
        if form == "messages":
            return UserError("no message is the assistant's, so there is no answer to learn", "remove the row")
        return UserError(f"there is no answer in column `{_ANSWER_COLUMN[form]}`; the row has {columns_of(row)}", _MEND)

    def texts(self, row: Row) -> Iterator[str]:
        """The plain texts of the row, prompts before answers."""
        form = self._format(row)
        if form == "messages":
            return texts_in(message["content"] for message in self._messages(row))
        prompts = self._placeholders or (("instruction", "input") if form == "alpaca" else ("prompt",))
        return texts_in(text_of(row, name) for name in (*prompts, _ANSWER_COLUMN[form]))

    def _format(self, row: Row) -> str:
        if self.options.format != "auto":
            return self.options.format
        if self._placeholders:
            return "prompt_completion" if row.get("output") is None and "completion" in row else "alpaca"
        for column, form in (
            ("messages", "messages"),
            ("instruction", "alpaca"),
            ("prompt", "prompt_completion"),
        ):
            if row.get(column) is not None:
                return form
        raise UserError(
            f"found no instruction; the row has {columns_of(row)}",
            "a row has `instruction` and `output`, or `prompt` and `completion`, or `messages`; " + _MEND,
        )

    def _needed(self, row: Row, column: str) -> str:
        text = text_of(row, column)
        if text is None:
            raise UserError(f"there is no text in column `{column}`; the row has {columns_of(row)}", _MEND)
        if not text.strip():
            raise UserError(f"the text in column `{column}` is empty", "fill it in, or remove the row")
        return text

    def _filled(self, row: Row, column: str) -> str:
        """The text for a placeholder of the template; ``input`` may be absent or empty."""
        return (text_of(row, column) or "") if column == "input" else self._needed(row, column)

    def _messages(self, row: Row) -> list[Message]:
        """The row's messages, without the fields that they leave empty."""
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise UserError(
                f"there are no messages in column `messages`; the row has {columns_of(row)}",
                "a row's `messages` are a list of tables with `role` and `content`",
            )
        read = []
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise UserError(f"message {number} has no `role`", "a message is a table with `role` and `content`")
            if not isinstance(message.get("content"), str):
                raise UserError(f"message {number} ({message['role']}) has no text in `content`", "remove the row")
            if message["role"] == "assistant" and not message["content"].strip():
                raise UserError(f"message {number}, an answer of the assistant, is empty", "remove the row")
            read.append({name: value for name, value in message.items() if value is not None})
        return read

    def _chat(self, messages: list[Message], processor: Any) -> Dialogue:
        """Lay out a conversation by the chat template, up to its last answer."""
        if not processor.chat_template:
            raise UserError(
                "the row has chat messages, and the model's tokenizer has no chat template",
                "choose an instruction-tuned model, or rows with `prompt` and `completion`",
            )
        if self.options.system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.options.system}, *messages]
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            return Dialogue((Turn(rendered(processor, messages, prompt=True), None),), templated=True)
        whole, at, turns = rendered(processor, messages[: answers[-1] + 1]), 0, []
        for index in answers:
            prompt = rendered(processor, messages[:index], prompt=True)
            so_far = whole if index == answers[-1] else rendered(processor, messages[: index + 1])
            written = None
            if whole.startswith(prompt) and so_far.startswith(prompt) and len(prompt) >= at:
                written = _written(whole, len(prompt), so_far[len(prompt) :], messages[index]["content"].strip())
            if written is None:
                raise UserError(
                    f"the chat template changes message {index + 1} when the conversation goes on, "
                    "so the answer cannot be told from the prompt",
                    "make a row of its own for each answer, or give a `template` and rows of columns",
                )
            turns.append(Turn(whole[at : len(prompt)], written))
            at = len(prompt) + len(written)
        return Dialogue(tuple(turns), templated=True)


def rendered(processor: Any, messages: list[Message], prompt: bool = False) -> str:
    """The chat template's text of the messages; ``prompt``: with what asks the model for its next answer."""
    try:
        text: str = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except TemplateError as error:
        raise UserError(
            f"the model's chat template refuses the row: {error}",
            "check the order of the roles; some templates know no system prompt",
        ) from error
    except Exception as error:  # a template is a program, and may fail in any way that one can
        raise UserError(
            f"the model's chat template fails on the row: {type(error).__name__}: {error}",
            "mend the template: `chat_template` in [model], or the file that came with the model",
        ) from error
    return text


def _written(whole: str, at: int, alone: str, content: str) -> str | None:
    """How an answer stands in the whole conversation at ``at``, given how it stands where nothing follows it.

    The two are the same but for what some templates put before the newest answer alone, as an empty block of
    thoughts. None where they differ in more.
    """
    for start in range(len(alone) - len(content) + 1):
        if whole.startswith(alone[start:], at):
            return alone[start:]
    return None
