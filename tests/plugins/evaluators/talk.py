"""A small question-and-answer objective, and the plainest way to let a model answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ftk import UserError
from ftk.parts import Features, Row
from ftk_plugins.objectives.token_loss import IGNORED
from ftk_plugins.objectives.tokens import TokenObjective

END = 1


class Talk(TokenObjective):
    """``instruction`` is read, ``output`` and the end token are to be written."""

    def texts(self, row: Row) -> Iterator[str]:
        yield from (row["instruction"], row["output"])

    def prompt(self, row: Row, processor: Any) -> list[int]:
        if not row["instruction"]:
            raise UserError("the text in column `instruction` is empty", "fill it in")
        return self.codec(processor).ids(row["instruction"])

    def answer(self, row: Row) -> str:
        return str(row["output"])

    def encode(self, row: Row, processor: Any) -> Features:
        prompt, answer = self.prompt(row, processor), [*self.codec(processor).ids(row["output"]), END]
        return {
            "input_ids": np.array(prompt + answer, np.int32),
            "labels": np.array([IGNORED] * len(prompt) + answer, np.int32),
        }


ROWS = [
    {"instruction": "Capital of France?", "output": "Paris", "keywords": ["Paris"]},
    {"instruction": "2+2=", "output": "4", "keywords": ["4"]},
    {"instruction": "What is the symbol of the element helium?", "output": "He", "keywords": ["He"]},
    {"instruction": "東京は?", "output": "日本の首都", "keywords": ["日本", "首都"]},
    {"instruction": "Say it twice: no", "output": "no no", "keywords": ["no"]},
]


def greedy(model: Any, prompt: list[int], limit: int, ends: tuple[int, ...] = (END,)) -> list[int]:
    """The likeliest tokens one by one: a row alone, no padding, no cache."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(prompt) :]
