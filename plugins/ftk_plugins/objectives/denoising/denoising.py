"""The objective `denoising`: an encoder reads a text with gaps, and a decoder writes what is missing, or all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from ftk import UserError
from ftk.parts import Batch, Features, Head, Packing, Row
from ftk_plugins.objectives.denoising.gaps import placed, poisson_lengths, span_lengths
from ftk_plugins.objectives.denoising.options import DenoisingOptions
from ftk_plugins.objectives.framed import FRAME, FramedCodec
from ftk_plugins.objectives.model_inputs import START
from ftk_plugins.objectives.token_loss import IGNORED
from ftk_plugins.objectives.tokens import TokenObjective, required_text, text_of, texts_in

SPARE = FRAME + 1
"""Positions of a window that are left for what is added: the tokens around a text, or a sentinel more than gaps."""

STOPS = ".!?。！？…"
"""A token that ends with one of these ends a sentence."""


class Repair(FramedCodec):
    """A tokenizer with what stands for a gap.

    Attributes:
        gaps: the ids of the sentinels in their order, or of the mask alone, ``(ids,) int32``.
        ends: by token id, whether it ends a sentence, ``(ids,) bool``; all False where nobody asks.

    Raises:
        UserError: the tokenizer has no such tokens.
    """

    def __init__(self, processor: Any, options: DenoisingOptions) -> None:
        super().__init__(processor)
        known = processor.get_vocab()
        if options.scheme == "spans":
            number, found = 0, []
            while (token := options.sentinel.replace("{}", str(number))) in known:
                found.append(known[token])
                number += 1
            if len(found) < 2:
                raise UserError(
                    f"the tokenizer has {len(found)} sentinels spelled `{options.sentinel}`; a text with gaps needs 2",
                    'choose a model such as T5, name them with `sentinel`, or set `scheme = "infilling"`',
                )
        elif processor.mask_token_id is None:
            raise UserError("the tokenizer has no mask token", 'choose a model such as BART, or set `scheme = "spans"`')
        else:
            found = [processor.mask_token_id]
        self.gaps = np.array(found, np.int32)
        self.ends = np.zeros(len(self.is_special), bool)
        if options.permute_sentences:
            spelled = processor.batch_decode(self.plain[:, None])
            self.ends[self.plain] = [text.rstrip().endswith(tuple(STOPS)) for text in spelled]


class Denoising(TokenObjective):
    """Repairs what :meth:`vary` damages; all that is encoded is the text itself."""

    shift: ClassVar[int] = 0

    def __init__(self, options: DenoisingOptions) -> None:
        super().__init__()
        self.options = options

    @property
    def head(self) -> Head:
        return Head("seq2seq_lm")

    def codec(self, processor: Any) -> Repair:
        if not isinstance(self._codec, Repair) or self._codec.processor is not processor:
            self._codec = Repair(processor, self.options)
        return self._codec

    def texts(self, row: Row) -> Iterator[str]:
        return texts_in(iter([text_of(row, self.options.text)]))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` ``(time,) int32`` of the text, without the tokens around it."""
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        texts = [required_text(row, self.options.text) for row in rows]
        codec = self.codec(processor)
        encoded = [np.array(ids, np.int32) for ids in codec.many(texts)]
        if self.options.long_rows == "truncate":
            encoded = [ids[: self.options.max_length - SPARE] for ids in encoded]
        if any(np.isin(ids, codec.gaps).any() for ids in encoded):
            what = "a sentinel" if self.options.scheme == "spans" else "the mask token"
            raise UserError(f"the text holds {what}, which stands for a gap", "remove the row")
        return [{"input_ids": ids} for ids in encoded]

    def packing(self) -> Packing:
        """Windows of ``max_length`` tokens, what the damage adds among them; none are joined."""
        return Packing(self.options.max_length, added=SPARE)

    def vary(self, item: Features, processor: Any, rng: np.random.Generator) -> Features:
        """``input_ids`` that the encoder reads and ``labels`` that the decoder writes, ``(time,) int32`` each."""
        codec, ids = self.codec(processor), item["input_ids"]
        if self.options.scheme == "infilling":
            return self._infilled(ids, codec, rng)
        density, mean = self.options.hidden_share, self.options.mean_span
        lengths = span_lengths(len(ids), density, mean, len(codec.gaps) - 1, rng)
        starts = placed(lengths, len(ids), rng)
        read, hidden = _cut(ids, starts, lengths)
        # Each gap's sentinel stands before what fills it, and one more says that there are no further gaps.
        marks = codec.gaps[: len(starts) + 1]
        written = [*_between(hidden, marks[:-1]), marks[-1:], np.array([codec.end], np.int32)]
        return {
            "input_ids": codec.framed(np.concatenate(_between(read, marks[:-1], first=read[0]))),
            "labels": np.concatenate(written),
        }

    def _infilled(self, ids: np.ndarray, codec: Repair, rng: np.random.Generator) -> Features:
        read = ids
        if self.options.permute_sentences:
            sentences = np.split(ids, np.flatnonzero(codec.ends[ids][:-1]) + 1)
            read = np.concatenate([sentences[index] for index in rng.permutation(len(sentences))])
        lengths = poisson_lengths(len(ids), self.options.hidden_share, self.options.mean_span, rng)
        kept, _ = _cut(read, placed(lengths, len(read), rng), lengths)
        whole = codec.framed(ids)
        end = [] if codec.stop else [codec.end]
        return {
            "input_ids": codec.framed(np.concatenate(_between(kept, codec.gaps.repeat(len(lengths)), first=kept[0]))),
            "labels": np.concatenate([whole, np.array(end, np.int32)]),
        }

    def collate(self, items: Sequence[Features]) -> Batch:
        """What encoder and decoder read and what the decoder writes, padded on the right, ``(rows, time) int64`` each.

        ``decoder_input_ids`` are the labels one place later; they begin with the token with which the model's decoder
        starts, for which -1 stands.
        """
        lengths = [len(item["input_ids"]) for item in items]
        targets = [len(item["labels"]) for item in items]
        ids, mask = (np.zeros((len(items), max(lengths)), np.int64) for _ in range(2))
        labels = np.full((len(items), max(targets)), IGNORED, np.int64)
        begun = np.zeros_like(labels)
        begun[:, 0] = START
        for row, item in enumerate(items):
            ids[row, : lengths[row]], mask[row, : lengths[row]] = item["input_ids"], 1
            labels[row, : targets[row]] = item["labels"]
            begun[row, 1 : targets[row]] = item["labels"][:-1]
        columns = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": begun, "labels": labels}
        tensors = {name: torch.from_numpy(array) for name, array in columns.items()}
        return Batch(tensors, sum(targets), sum(lengths) + sum(targets), lengths)


def _cut(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What stays of a text with gaps, one piece more than gaps, and what was in them."""
    pieces = np.split(ids, np.stack([starts, starts + lengths], 1).flatten())
    return pieces[::2], pieces[1::2]


def _between(pieces: list[np.ndarray], marks: np.ndarray, first: np.ndarray | None = None) -> list[np.ndarray]:
    """A mark before each of the pieces; before the first there is none where it is given apart."""
    rest = pieces if first is None else pieces[1:]
    marked = [part for mark, piece in zip(marks, rest, strict=True) for part in (np.array([mark], np.int32), piece)]
    return marked if first is None else [first, *marked]
