"""A tokenizer whose texts stand between tokens of its own, as BERT's between [CLS] and [SEP]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Features

from .tokens import Codec

FRAME = 2
"""The most tokens that a tokenizer may put around a text; a window has room for as many."""


class FramedCodec(Codec):
    """A codec for objectives that draw anew what a model reads, and put the tokens around it afterwards.

    Attributes:
        is_special: by token id, whether no plain text spells it, ``(ids,) bool``.
        plain: the ids of all other tokens, ``(tokens,) int32``.

    Raises:
        UserError: the tokenizer puts more than ``FRAME`` tokens around a text.
    """

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        around = len(self.start) + len(self.stop)
        if around > FRAME:
            raise UserError(
                f"the tokenizer puts {around} tokens around a text; at most {FRAME} are understood",
                'name another one: `tokenizer = "…"` in [model]',
            )
        ids = np.array(sorted(processor.get_vocab().values()), np.int32)
        self.is_special = np.zeros(max(int(ids[-1]), *self.special, 0) + 1, bool)
        self.is_special[list(self.special)] = True
        self.plain = ids[~self.is_special[ids]]

    def framed(self, values: np.ndarray, fill: int | None = None) -> np.ndarray:
        """Values at the tokens of a text, with the tokens around it or with ``fill`` in their places; the same type."""
        around = ([token if fill is None else fill for token in ids] for ids in (self.start, self.stop))
        start, stop = (np.array(ids, values.dtype) for ids in around)
        return np.concatenate([start, values, stop])

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without any the tokenizer would add."""
        return self._many(list(texts))

    def words(self, texts: Sequence[str]) -> list[Features]:
        """Of each text ``input_ids`` and ``words``, the number of the word of each token, both ``(time,) int32``.

        What a word is the tokenizer says: what it never joins with its neighbours.

        Raises:
            UserError: the tokenizer does not tell words.
        """
        backend = getattr(self.processor, "backend_tokenizer", None)
        if backend is None:
            raise UserError("`whole_words`: this tokenizer does not tell which tokens are a word", "leave it out")
        return [
            {
                "input_ids": np.array(encoding.ids, np.int32),
                "words": np.array([-1 if word is None else word for word in encoding.word_ids], np.int32),
            }
            for encoding in backend.encode_batch(list(texts), add_special_tokens=False)
        ]
