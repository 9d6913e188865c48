"""The objective `instruction`: the model learns to write the answer after the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Features, Packing, Row
from ftk_plugins.objectives.instruction.dialogue import Dialogue, Reader
from ftk_plugins.objectives.instruction.options import InstructionOptions
from ftk_plugins.objectives.token_loss import IGNORED
from ftk_plugins.objectives.tokens import Codec, TokenObjective


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A row's token ids, its labels, and where its last answer begins."""

    ids: list[int]
    labels: list[int]
    answer: int


class Instruction(TokenObjective):
    """Next-token prediction on answers.

    Prompt and answer are tokenized apart and joined, so that what is learned begins at the very token at
    which the model begins to write when it is asked.
    """

    def __init__(self, options: InstructionOptions) -> None:
        super().__init__(options.router_loss)
        self.options = options
        self.reader = Reader(options)

    def texts(self, row: Row) -> Iterator[str]:
        return self.reader.texts(row)

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` and ``labels``, ``(time,) int32``; labels are -100 outside what is learned."""
        return self._features(self._learnable(row, processor), self.codec(processor))

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        dialogues = [self._learnable(row, processor) for row in rows]
        codec = self.codec(processor).knowing(text for dialogue in dialogues for text in _texts(dialogue))
        return [self._features(dialogue, codec) for dialogue in dialogues]

    def packing(self) -> Packing | None:
        return Packing(self.options.max_length, joined=True) if self.options.packing else None

    def prompt(self, row: Row, processor: Any) -> list[int]:
        """The token ids before the row's last answer, the beginning of what :meth:`encode` gives."""
        tokens = self._tokens(self.reader.dialogue(row, processor), self.codec(processor))
        return tokens.ids[: tokens.answer]

    def answer(self, row: Row) -> str:
        """The text of the row's last answer. Raises ``UserError`` where the row has none."""
        answer = self.reader.answer(row)
        if answer is None:
            raise self.reader.missing_answer(row)
        return answer

    def _learnable(self, row: Row, processor: Any) -> Dialogue:
        dialogue = self.reader.dialogue(row, processor)
        if dialogue.turns[-1].write is None:
            raise self.reader.missing_answer(row)
        return dialogue

    def _features(self, dialogue: Dialogue, codec: Codec) -> Features:
        tokens = self._tokens(dialogue, codec)
        features = {
            "input_ids": np.array(tokens.ids, dtype=np.int32),
            "labels": np.array(tokens.ids if self.options.loss_on == "all" else tokens.labels, dtype=np.int32),
        }
        if not (features["labels"][1:] != IGNORED).any():
            raise UserError("the row has no token to learn", "remove the row")
        return features

    def _tokens(self, dialogue: Dialogue, codec: Codec) -> _Tokens:
        """Tokenize turn by turn; what ends an answer is learned with it."""
        ids = [] if dialogue.templated else list(codec.start)
        labels, answer, between, ended = [IGNORED] * len(ids), 0, "", False
        for turn in dialogue.turns:
            ids += codec.ids(between + turn.read)
            labels += [IGNORED] * (len(ids) - len(labels))
            answer = len(ids)
            if turn.write is not None:
                write, between, ended = _answer_ids(turn.write, codec, dialogue.templated)
                ids += write
                labels += write
        if dialogue.turns[-1].write is not None and not ended:
            ids.append(codec.end)
            labels.append(codec.end)
        return self._fitted(_Tokens(ids, labels, answer), codec)

    def _fitted(self, tokens: _Tokens, codec: Codec) -> _Tokens:
        """Cut a row to ``max_length`` as ``long_rows`` says. Raises ``UserError`` where it cannot."""
        most, length, policy = self.options.max_length, len(tokens.ids), self.options.long_rows
        # A prompt without an answer needs room for one token at least.
        excess = max(length, tokens.answer + 1) - most
        if excess <= 0:
            return tokens
        if policy == "error":
            raise UserError(
                f"the row has {length} tokens, and `max_length` is {most}",
                'raise `max_length`, or set `long_rows` to "cut_start" or "cut_end"',
            )
        if policy == "cut_end":
            if tokens.answer >= most:
                raise UserError(
                    f"the prompt alone has {tokens.answer} tokens, and `max_length` is {most}",
                    'raise `max_length`, or set `long_rows` to "cut_start"',
                )
            return _Tokens(tokens.ids[:most], tokens.labels[:most], tokens.answer)
        head = codec.start if tokens.ids[: len(codec.start)] == codec.start else []
        start = len(head) + excess
        if start >= tokens.answer:
            raise UserError(
                f"the answer alone has {length - tokens.answer} tokens, which leaves no room for its prompt "
                f"within the {most} of `max_length`",
                "raise `max_length`",
            )
        kept = slice(start, None)
        labels = [IGNORED] * len(head) + tokens.labels[kept]
        return _Tokens(head + tokens.ids[kept], labels, tokens.answer - excess)


def _texts(dialogue: Dialogue) -> Iterator[str]:
    """The texts that :meth:`Instruction._tokens` will ask for, where answers end as they should."""
    between = ""
    for turn in dialogue.turns:
        yield between + turn.read
        if turn.write is not None:
            body = turn.write.rstrip() if dialogue.templated else turn.write
            between = turn.write[len(body) :]
            yield body


def _answer_ids(text: str, codec: Codec, templated: bool) -> tuple[list[int], str, bool]:
    """An answer's token ids, the white space left to what is read next, whether a special token ends it."""
    if templated:
        body = text.rstrip()
        ids = codec.ids(body)
        if ids and ids[-1] in codec.special:
            return ids, text[len(body) :], True
    return codec.ids(text), "", False
