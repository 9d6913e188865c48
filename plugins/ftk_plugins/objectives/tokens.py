"""What the objectives over tokens share: tokenizing, padding, packing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Row

from .token_loss import IGNORED, draw_targets, token_loss

_PLAIN = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
"""How a processor is called for token ids and nothing else."""


class Codec:
    """One tokenizer, with what every row needs of it looked up once.

    Attributes:
        processor: the tokenizer.
        start: the token ids that the tokenizer puts before a text by itself, such as the begin-of-text token.
        stop: those that it puts after a text.
        special: the ids of all tokens that no plain text spells.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._known: dict[str, list[int]] = {}
        plain, whole = self.ids("a"), list(processor("a")["input_ids"])
        matches = (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
        at = next(matches, 0)
        self.start: list[int] = whole[:at]
        self.stop: list[int] = whole[at + len(plain) :]
        self.special = frozenset(processor.all_special_ids) | frozenset(
            index for index, token in processor.added_tokens_decoder.items() if token.special
        )

    def ids(self, text: str) -> list[int]:
        """The token ids of ``text``, without any the tokenizer would add."""
        if (known := self._known.get(text)) is not None:
            return list(known)
        ids: list[int] = self.processor(text, **_PLAIN)["input_ids"]
        return ids

    def knowing(self, texts: Iterable[str]) -> Codec:
        """The same codec with these texts tokenized already, in one call."""
        codec, wanted = copy(self), list(dict.fromkeys(texts))
        codec._known = dict(zip(wanted, self._many(wanted), strict=True))
        return codec

    def _many(self, texts: list[str]) -> list[list[int]]:
        backend = getattr(self.processor, "backend_tokenizer", None)
        # What a call of the processor makes sure of before it comes to the same; most of its time goes to the rest.
        if (
            backend is not None
            and backend.padding is None
            and backend.truncation is None
            and backend.encode_special_tokens == getattr(self.processor, "split_special_tokens", None)
        ):
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
        ids: list[list[int]] = self.processor(texts, **_PLAIN)["input_ids"] if texts else []
        return ids

    @property
    def end(self) -> int:
        """The id of the end-of-text token. Raises ``UserError`` where the tokenizer has none."""
        end: int | None = self.processor.eos_token_id
        if end is None:
            raise UserError(
                "the tokenizer has no end-of-text token, so the model could not learn where to stop",
                "set `eos_token` in the model's tokenizer_config.json",
            )
        return end


class TokenObjective(Objective):
    """Predicts tokens: a row is ``input_ids`` and ``labels``, and its loss the targets' summed NLL.

    A label stands at its own token; the loss shifts once. ``position_ids``, where a row has them, restart
    at 0 wherever a packed row begins.

    Attributes:
        shift: how many positions before a label stands what predicts it: 1 where each token is predicted from those
            before it; 0 where the model reads in both directions.
    """

    shift: ClassVar[int] = 1

    def __init__(self, router_loss: float | None = None) -> None:
        self._codec: Codec | None = None
        self._router_loss = router_loss

    @property
    def head(self) -> Head:
        return Head("causal_lm")

    def codec(self, processor: Any) -> Codec:
        """The codec of ``processor``, made at the first row and kept."""
        if self._codec is None or self._codec.processor is not processor:
            self._codec = Codec(processor)
        return self._codec

    @abstractmethod
    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` and ``labels``, both ``(time,) int32``; labels are -100 where no target is."""

    def join(self, pieces: Sequence[Features]) -> Features:
        """One packed row of several, positions restart in each; where labels are shifted, its first is no target."""
        labels = np.concatenate([piece["labels"] for piece in pieces])
        lengths = [len(piece["labels"]) for piece in pieces]
        if self.shift:
            labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
        return {
            "input_ids": np.concatenate([piece["input_ids"] for piece in pieces]),
            "labels": labels,
            "position_ids": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        }

    def collate(self, items: Sequence[Features]) -> Batch:
        """Pad on the right into ``input_ids`` and ``labels``, both ``(rows, time) int64``.

        There is no attention mask where labels are shifted: causal attention never looks right, where the padding
        is, and padding is no target. Otherwise there is one. ``position_ids`` are there if any of the rows has them.
        """
        lengths = [len(item["input_ids"]) for item in items]
        shape = (len(items), max(lengths))
        columns = {"input_ids": np.zeros(shape, np.int64), "labels": np.full(shape, IGNORED, np.int64)}
        if self.shift == 0:
            columns["attention_mask"] = np.zeros(shape, np.int64)
        if any("position_ids" in item for item in items):
            columns["position_ids"] = np.zeros(shape, np.int64)
            steps = np.arange(shape[1])
        for index, (item, length) in enumerate(zip(items, lengths, strict=True)):
            columns["input_ids"][index, :length] = item["input_ids"]
            columns["labels"][index, :length] = item["labels"]
            if "attention_mask" in columns:
                columns["attention_mask"][index, :length] = 1
            if "position_ids" in columns:
                columns["position_ids"][index, :length] = item.get("position_ids", steps[:length])
                columns["position_ids"][index, length:] = steps[: shape[1] - length]
        count = int(np.count_nonzero(columns["labels"][:, self.shift :] != IGNORED))
        return Batch({name: torch.from_numpy(array) for name, array in columns.items()}, count, sum(lengths), lengths)

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """The negative log-likelihood of all targets, summed in float32; smoothed while the model is in training mode.

        In training mode the balancing loss of a mixture of experts is added, once for each target.

        ``outputs`` carries ``logits`` ``(targets, vocab)`` in the model's dtype, with their graph, and
        ``labels`` ``(targets,) int64``, both in the order of the batch, row by row. Where the loss is computed in
        chunks, the logits are made when they are read. In ``eval`` mode it also tells each row's part: ``row_nats``
        float32 and ``row_targets`` int64, ``(rows,)``.

        Raises:
            UserError: the rows are packed and the model cannot keep packed rows apart; or ``ctx.loss_chunks`` asks
                for chunks that the model does not allow.
        """
        return token_loss(model, batch, ctx, self.shift, self._router_loss)

    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Each target replaced by a draw from the model's softmax there; the tokens that are read stay."""
        return draw_targets(model, batch, generator, self.shift)


def text_of(row: Row, column: str) -> str | None:
    """The text in a column; a number is written out; None where the row has none there.

    Raises:
        UserError: the column holds something that is no text.
    """
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"column `{column}` holds a {type(value).__name__}, where text is needed")


def required_text(row: Row, column: str, option: str = "text") -> str:
    """The text in a column, which the objective's ``option`` names.

    Raises:
        UserError: there is none, or it is empty.
    """
    text = text_of(row, column)
    if text is None:
        raise UserError(
            f"there is no text in column `{column}`; the row has {columns_of(row)}",
            f"name the column with the objective's `{option}`, or map it with the data set's `columns`",
        )
    if not text.strip():
        raise UserError(f"the text in column `{column}` is empty", "remove the row")
    return text


def columns_of(row: Row) -> str:
    """The columns that the row fills, for messages."""
    filled = [f"`{name}`" for name, value in row.items() if value is not None]
    return ", ".join(filled) if filled else "no columns"


def texts_in(values: Iterator[str | None]) -> Iterator[str]:
    """Those values that are texts with something in them."""
    return (value for value in values if value is not None and value.strip())
