"""The objective `causal_lm`: each token of a text is predicted from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Features, Packing, Row
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from ftk_plugins.objectives.tokens import Codec, TokenObjective, required_text, text_of, texts_in


class CausalLM(TokenObjective):
    """Next-token prediction; every token but a row's first is a target."""

    def __init__(self, options: CausalLMOptions) -> None:
        super().__init__(options.router_loss)
        self.options = options

    def texts(self, row: Row) -> Iterator[str]:
        return texts_in(iter([text_of(row, self.options.text)]))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` and ``labels``, ``(time,) int32`` of the whole text; :meth:`packing` splits it."""
        return self._features(required_text(row, self.options.text), self.codec(processor))

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        texts = [required_text(row, self.options.text) for row in rows]
        codec = self.codec(processor).knowing(texts)
        return [self._features(text, codec) for text in texts]

    def packing(self) -> Packing:
        """Windows of ``max_length`` tokens; each but a text's first begins with the last token of the one before.

        So every token but a text's first is a target exactly once.
        """
        return Packing(self.options.max_length, joined=self.options.packing, repeated=1)

    def _features(self, text: str, codec: Codec) -> Features:
        ids = codec.start + codec.ids(text)
        if self.options.append_eos:
            ids.append(codec.end)
        if self.options.long_rows == "truncate":
            ids = ids[: self.options.max_length]
        if len(ids) < 2:
            raise UserError("the text is a single token, and nothing is left to predict", "remove the row")
        input_ids = np.array(ids, dtype=np.int32)
        return {"input_ids": input_ids, "labels": input_ids}
