"""The forms of row that a model can be made to write: a text, or a question with its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ftk import UserError
from ftk.parts import derive_seed
from ftk_plugins.datasets.self_synthesis.options import SelfSynthesisOptions
from ftk_plugins.datasets.self_synthesis.sampling import Writer, Written
from ftk_plugins.objectives.instruction.dialogue import rendered
from ftk_plugins.objectives.tokens import Codec

MARK = "4242"
"""Stands for a question, to find what the chat template writes around it."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row that a model wrote.

    Attributes:
        columns: its texts by column.
        nats: the negative log-likelihood of all that the model wrote of it.
        tokens: how many tokens that are.
        flaw: why the row is of no use, in words that follow a number of rows; empty: it is.
    """

    columns: dict[str, str]
    nats: float
    tokens: int
    flaw: str = ""


Form = Callable[[range], list[Drawn]]
"""Draws the rows of these numbers, counted over the whole data set."""


def texts(writer: Writer, options: SelfSynthesisOptions) -> Form:
    """Texts, from the start of a document or from the recipe's beginnings.

    Raises:
        UserError: there is nothing to begin with.
    """
    codec, tokenizer = Codec(writer.processor), writer.processor
    start = codec.start or [id for id in (tokenizer.bos_token_id, tokenizer.eos_token_id) if id is not None][:1]
    if not start and not options.prompts:
        raise UserError(
            "the tokenizer has no token that begins or ends a text, for the model to begin with",
            "say how texts begin: `prompts`",
        )
    # Where no token begins a text, one that ends the text before stands there only for want of anything else.
    begun = [codec.start + codec.ids(prompt) for prompt in options.prompts] or [start]

    def draw(numbers: range) -> list[Drawn]:
        prompts = [begun[number % len(begun)] for number in numbers]
        written = writer.write(prompts, derive_seed(options.seed, "text", numbers.start))
        whole = [_text(tokenizer, prompt + one.ids) for prompt, one in zip(prompts, written, strict=True)]
        return [
            Drawn({"text": text}, one.nats, one.tokens, "" if text.strip() and one.ids else "empty")
            for text, one in zip(whole, written, strict=True)
        ]

    return draw


def chats(writer: Writer, options: SelfSynthesisOptions) -> Form:
    """Questions, written where the chat template has the user speak, or the recipe's; each with its answer.

    Raises:
        UserError: there is no chat template, or it fails on a question.
    """
    codec, tokenizer = Codec(writer.processor), writer.processor
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the model's tokenizer has no chat template, so that nothing says where a question stands",
            'leave out `form = "chat"`, choose an instruction-tuned model, or set `chat_template` in [model]',
        )
    before, _, behind = rendered(tokenizer, _asked(MARK), prompt=True).partition(MARK)

    def asked(numbers: range) -> list[Drawn]:
        if options.prompts:
            chosen = [options.prompts[number % len(options.prompts)] for number in numbers]
            return [Drawn({"instruction": question}, 0.0, 0) for question in chosen]
        written = writer.write([codec.ids(before)] * len(numbers), derive_seed(options.seed, "ask", numbers.start))
        return [_question(_text(tokenizer, one.ids), behind, one, options) for one in written]

    def draw(numbers: range) -> list[Drawn]:
        questions = asked(numbers)
        of_use = [question for question in questions if not question.flaw]
        prompts = [codec.ids(rendered(tokenizer, _asked(one.columns["instruction"]), prompt=True)) for one in of_use]
        answers = writer.write(prompts, derive_seed(options.seed, "answer", numbers.start)) if prompts else []
        whole = [
            _answered(question, _text(tokenizer, answer.ids).strip(), answer, options)
            for question, answer in zip(of_use, answers, strict=True)
        ]
        return [question for question in questions if question.flaw] + whole

    return draw


def _asked(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def _question(text: str, behind: str, written: Written, options: SelfSynthesisOptions) -> Drawn:
    """A question of what the model wrote; where a plain text ends a question in the template, it ends there too."""
    question, ending, _ = text.partition(behind.strip()) if behind.strip() else (text, "", "")
    flaw = "" if question.strip() else "empty"
    if not (written.ended or ending):
        flaw = f"with a question cut off after {options.max_new_tokens} tokens"
    return Drawn({"instruction": question.strip()}, written.nats, written.tokens, flaw)


def _answered(question: Drawn, text: str, answer: Written, options: SelfSynthesisOptions) -> Drawn:
    flaw = "" if text else "empty"
    if not answer.ended:
        flaw = f"with an answer cut off after {options.max_new_tokens} tokens"
    columns = {**question.columns, "output": text}
    return Drawn(columns, question.nats + answer.nats, question.tokens + answer.tokens, flaw)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


FORMS: dict[str, Callable[[Writer, SelfSynthesisOptions], Form]] = {"text": texts, "chat": chats}
