"""The objective `masked_lm`: some tokens of a text are hidden and predicted from what stands on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ftk import UserError
from ftk.parts import Features, Head, Packing, Row
from ftk_plugins.objectives.framed import FRAME, FramedCodec
from ftk_plugins.objectives.masked_lm.options import MaskedLMOptions
from ftk_plugins.objectives.token_loss import IGNORED
from ftk_plugins.objectives.tokens import TokenObjective, required_text, text_of, texts_in


class MaskedLM(TokenObjective):
    """Prediction of the tokens that :meth:`vary` hides; all that is encoded is the text itself."""

    shift: ClassVar[int] = 0

    def __init__(self, options: MaskedLMOptions) -> None:
        super().__init__()
        self.options = options

    @property
    def head(self) -> Head:
        return Head("masked_lm")

    def codec(self, processor: Any) -> FramedCodec:
        if not isinstance(self._codec, FramedCodec) or self._codec.processor is not processor:
            self._codec = FramedCodec(processor)
        return self._codec

    def texts(self, row: Row) -> Iterator[str]:
        return texts_in(iter([text_of(row, self.options.text)]))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` ``(time,) int32`` of the text, without the tokens around it; with ``whole_words`` ``words``.

        ``words`` ``(time,) int32`` are the numbers of the words that the tokens belong to.
        """
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        texts = [required_text(row, self.options.text) for row in rows]
        codec = self.codec(processor)
        if processor.mask_token_id is None:
            raise UserError(
                "the tokenizer has no mask token", "choose a model that was made for masked language modeling"
            )
        if self.options.whole_words:
            encoded = codec.words(texts)
        else:
            encoded = [{"input_ids": np.array(ids, np.int32)} for ids in codec.many(texts)]
        return [self._checked(features, codec) for features in encoded]

    def packing(self) -> Packing:
        """Windows of ``max_length`` tokens, those among them with which the tokenizer opens and closes a text."""
        return Packing(self.options.max_length, joined=self.options.packing, added=FRAME)

    def vary(self, item: Features, processor: Any, rng: np.random.Generator) -> Features:
        """``input_ids`` as the model reads them and ``labels`` at the targets, ``(time,) int32``.

        Each token that is no special one is a target with the same probability, independently of the others; where
        none would be, one is drawn. The target is read as the mask, as any token, or as it is.
        """
        codec, ids = self.codec(processor), item["input_ids"]
        chosen = self._chosen(~codec.is_special[ids], item.get("words"), rng)
        labels = np.where(chosen, ids, np.int32(IGNORED))
        fate = rng.random(len(ids))
        masked = chosen & (fate < self.options.mask_share)
        swapped = chosen & ~masked & (fate < self.options.mask_share + self.options.random_share)
        read = np.where(masked, np.int32(processor.mask_token_id), ids)
        read[swapped] = rng.choice(codec.plain, np.count_nonzero(swapped))
        return {"input_ids": codec.framed(read), "labels": codec.framed(labels, IGNORED)}

    def _chosen(self, plain: np.ndarray, words: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Which tokens are targets, ``(time,) bool``; at least one of those that can be, or one word's."""
        if words is None:
            number = np.cumsum(plain) - 1
        else:
            number = np.full(len(plain), -1)
            number[plain] = np.unique(words[plain], return_inverse=True)[1]
        count = int(number.max(initial=-1)) + 1
        drawn = rng.random(count) < self.options.probability
        if count and not drawn.any():
            drawn[rng.integers(count)] = True
        chosen: np.ndarray = plain & np.append(drawn, False)[number]
        return chosen

    def _checked(self, features: Features, codec: FramedCodec) -> Features:
        if self.options.long_rows == "truncate":
            features = {name: array[: self.options.max_length - FRAME] for name, array in features.items()}
        if codec.is_special[features["input_ids"]].all():
            raise UserError("the text has no token that could be masked", "remove the row")
        return features
