"""The objective `token_classification`: a tag of each word, learned and told at its first sub-word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row
from ftk_plugins.objectives.drawing import draw_classes
from ftk_plugins.objectives.labels import (
    Labels,
    in_order,
    known_labels,
    need_column,
    present,
    weights_of,
)
from ftk_plugins.objectives.sentences import encode_words, outputs_of, padded
from ftk_plugins.objectives.token_classification.options import TokenClassificationOptions
from ftk_plugins.objectives.token_loss import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset


class TokenClassification(Objective):
    """One word, one tag: the head answers at each sub-word, and that of a word's first one counts."""

    def __init__(self, options: TokenClassificationOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        return Head("token_classification", self.options.labels or (), name=self.options.head)

    def completed(self, rows: Dataset) -> Mapping[str, Any]:
        """The names of the tags and their weights, as far as the options leave them to the rows.

        Raises:
            UserError: the column is missing, or its tags are not two at least.
        """
        options, column = self.options, self.options.tags
        if options.labels is not None and options.class_weights != "balanced":
            return {}
        need_column(rows, column, "tags")
        names = options.labels or known_labels(rows, column, least=2)
        return {"labels": names, "class_weights": weights_of(options.class_weights, rows, column, names)}

    def texts(self, row: Row) -> Iterator[str]:
        """The words in one text."""
        words = row.get(self.options.tokens)
        if isinstance(words, list) and words:
            yield self.options.separator.join(map(str, words))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` and ``labels``, both ``(time,) int32``; labels are -100 where no target is.

        With ``label_all`` also ``first`` ``(time,) int8``, 1 at the first sub-word of each word.
        """
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        words = [self._words(row) for row in rows]
        tags = [self._tags(row, len(each)) for row, each in zip(rows, words, strict=True)]
        encoded = encode_words(processor, words, self.options.separator, self.options.max_length)
        return [self._tagged(features, right) for features, right in zip(encoded, tags, strict=True)]

    def collate(self, items: Sequence[Features]) -> Batch:
        """``input_ids``, ``attention_mask``, ``labels`` and, with ``label_all``, ``first``: ``(rows, time) int64``."""
        inputs, lengths = padded(items)
        for name in ("labels", "first"):
            if name in items[0]:
                inputs[name] = torch.full_like(inputs["input_ids"], IGNORED if name == "labels" else 0)
                for row, (item, length) in enumerate(zip(items, lengths, strict=True)):
                    inputs[name][row, :length] = torch.from_numpy(item[name].astype(np.int64))
        count = int((inputs["labels"] != IGNORED).sum())
        return Batch(inputs, count, sum(lengths), lengths)

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """Cross entropy at the targets, summed in float32; smoothed while the model is in training mode.

        ``outputs`` carries ``logits`` ``(targets, labels) float32`` with their graph and ``labels``
        ``(targets,) int64``, both in the order of the batch, row by row.
        """
        labels = batch.inputs["labels"]
        at = labels != IGNORED
        logits = self._logits(model, batch)[at]
        smoothing = ctx.label_smoothing if model.training else 0.0
        weights = self._weights.to(logits.device) if self._weights is not None else None
        total = F.cross_entropy(logits, labels[at], weights, reduction="sum", label_smoothing=smoothing)
        return Loss(total, batch.count, {"logits": logits, "labels": labels[at]})

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        """Logits beside tags, of each word at its first sub-word."""
        labels = batch.inputs["labels"]
        at = batch.inputs["first"] == 1 if "first" in batch.inputs else labels != IGNORED
        logits = self._logits(model, batch)[at]
        return Predictions("classes", logits, labels[at], self.labels.names, rows=at.nonzero()[:, 0])

    @torch.no_grad()
    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Each target replaced by a draw from the model's softmax there."""
        labels = batch.inputs["labels"]
        at = labels != IGNORED
        drawn = labels.masked_scatter(at, draw_classes(self._logits(model, batch)[at], generator))
        return replace(batch, inputs={**batch.inputs, "labels": drawn})

    @cached_property
    def labels(self) -> Labels:
        """The tags in order."""
        return Labels(self.options.labels or ())

    @cached_property
    def _weights(self) -> Tensor | None:
        return in_order(self.options.class_weights, self.labels)

    @staticmethod
    def _logits(model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = outputs_of(model, batch).logits.float()
        return logits

    def _words(self, row: Row) -> list[str]:
        column = self.options.tokens
        words = present(row, column, "tokens")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UserError(
                f"column `{column}` holds no list of words, but {words!r:.60}", 'write a list: ["a", "word"]'
            )
        if not words:
            raise UserError(f"column `{column}` holds no word", "remove the row")
        empty = [number for number, word in enumerate(words, start=1) if not word.strip()]
        if empty:
            raise UserError(f"word {empty[0]} in column `{column}` is empty", "remove it and its tag")
        return words

    def _tags(self, row: Row, words: int) -> np.ndarray:
        """The numbers of a row's tags, ``(words,) int32``."""
        column = self.options.tags
        tags = present(row, column, "tags")
        if not isinstance(tags, list):
            raise UserError(f"column `{column}` holds no list of tags, but {tags!r:.60}", 'write a list: ["O", "NAME"]')
        if len(tags) != words:
            raise UserError(
                f"column `{self.options.tokens}` holds {words} words, column `{column}` {len(tags)} tags",
                "give each word one tag",
            )
        return np.array([self.labels.index(tag) for tag in tags], np.int32)

    def _tagged(self, features: Features, tags: np.ndarray) -> Features:
        """The features of a row's words with the tags at their sub-words."""
        words = features["words"]
        inside = words >= 0
        first = np.zeros(len(words), np.int8)
        first[np.unique(words, return_index=True)[1]] = 1
        first[~inside] = 0
        if not first.any():
            raise UserError("the tokenizer leaves nothing of the row's words", "remove the row")
        at = inside if self.options.label_all else first == 1
        labels = np.full(len(words), IGNORED, np.int32)
        labels[at] = tags[words[at]]
        found = {"input_ids": features["input_ids"], "labels": labels}
        return {**found, "first": first} if self.options.label_all else found
