"""The objective `causal_lm`: each token of a text is predicted from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Features, Row
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from ftk_plugins.objectives.tokens import TokenObjective, best_fit, columns_of, join, text_of, texts_in


class CausalLM(TokenObjective):
    """Next-token prediction; every token but a row's first is a target."""

    def __init__(self, options: CausalLMOptions) -> None:
        super().__init__()
        self.options = options

    def texts(self, row: Row) -> Iterator[str]:
        return texts_in(iter([text_of(row, self.options.text)]))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` and ``labels``, ``(time,) int32`` of the whole text; :meth:`pack` splits it."""
        codec, text = self.codec(processor), text_of(row, self.options.text)
        if text is None:
            raise UserError(
                f"there is no text in column `{self.options.text}`; the row has {columns_of(row)}",
                "name the column with the objective's `text`, or map it with the data set's `columns`",
            )
        if not text.strip():
            raise UserError(f"the text in column `{self.options.text}` is empty", "remove the row")
        ids = codec.start + codec.ids(text)
        if self.options.append_eos:
            ids.append(codec.end)
        if self.options.long_rows == "truncate":
            ids = ids[: self.options.max_length]
        if len(ids) < 2:
            raise UserError("the text is a single token, and nothing is left to predict", "remove the row")
        input_ids = np.array(ids, dtype=np.int32)
        return {"input_ids": input_ids, "labels": input_ids}

    def pack(self, items: list[Features]) -> list[Features]:
        windows = [window for item in items for window in self._windows(item)]
        if not self.options.packing:
            return windows
        blocks = best_fit([len(window["input_ids"]) for window in windows], self.options.max_length)
        return [join([windows[index] for index in block]) for block in blocks]

    def _windows(self, item: Features) -> Iterator[Features]:
        """Cut a text into rows of at most ``max_length`` tokens.

        Each begins with the last token of the one before, so that every token but the text's first is a
        target exactly once.
        """
        length, most = len(item["input_ids"]), self.options.max_length
        if length <= most:
            yield item
            return
        for start in range(0, length - 1, most - 1):
            yield {name: array[start : start + most] for name, array in item.items()}
