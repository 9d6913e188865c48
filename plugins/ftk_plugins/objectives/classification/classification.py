"""The objective `classification`: labels or numbers of a text, or of a pair of texts, from the model's head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row, Task
from ftk_plugins.objectives.classification.options import ClassificationOptions
from ftk_plugins.objectives.drawing import draw_classes
from ftk_plugins.objectives.incremental import cross_entropy, known_outputs, predicted, taught_by
from ftk_plugins.objectives.labels import (
    Labels,
    in_order,
    known_labels,
    need_column,
    present,
    target_of,
    weights_of,
)
from ftk_plugins.objectives.sentences import encode_texts, outputs_of, padded
from ftk_plugins.objectives.tokens import required_text, text_of, texts_in

if TYPE_CHECKING:
    from datasets import Dataset


PROBLEMS = {
    "single": "single_label_classification",
    "multiple": "multi_label_classification",
    "regression": "regression",
}
"""What Transformers calls the kinds, and its pipelines read to make probabilities, or none, of the outputs."""


class Classification(Objective):
    """One row, one target: a label, a set of labels, or numbers."""

    def __init__(self, options: ClassificationOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        options = self.options
        return Head("sequence_classification", options.labels or (), PROBLEMS[options.kind], options.head)

    def completed(self, rows: Dataset) -> Mapping[str, Any]:
        """The names of labels and their weights, as far as the options leave them to the rows.

        Raises:
            UserError: the column is missing, or its labels are not two at least.
        """
        options, column = self.options, self.options.label
        if options.incremental and options.taught is None:
            need_column(rows, column)
            return {"taught": taught_by(rows, column, self.labels)}
        if options.labels is not None and options.class_weights != "balanced":
            return {}
        need_column(rows, column)
        names = options.labels
        if names is None and options.kind == "regression":
            names = self._numbers(rows)
        elif names is None:
            names = known_labels(rows, column, least=2 if options.kind == "single" else 1)
        weights = weights_of(options.class_weights, rows, column, names, several=options.kind == "multiple")
        return {"labels": names, "class_weights": weights}

    def texts(self, row: Row) -> Iterator[str]:
        columns = (self.options.text, self.options.pair)
        return texts_in(text_of(row, column) for column in columns if column is not None)

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` ``(time,) int32``, ``token_type_ids`` of a pair, and ``labels``.

        Labels are ``(1,) int32``, ``(1, labels) int8`` or ``(1, numbers) float32``; see :meth:`collate`.
        """
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        targets = [self._target(row) for row in rows]
        firsts = [required_text(row, self.options.text) for row in rows]
        pair = self.options.pair
        seconds = None if pair is None else [required_text(row, pair, "pair") for row in rows]
        encoded = encode_texts(processor, firsts, seconds, self.options.max_length)
        return [{**features, "labels": target} for features, target in zip(encoded, targets, strict=True)]

    def collate(self, items: Sequence[Features]) -> Batch:
        """``input_ids``, ``attention_mask`` and of pairs ``token_type_ids``, ``(rows, time) int64``, and ``labels``.

        Labels are ``(rows, 1) int64`` numbers of labels, ``(rows, labels) int64`` 0 and 1 where there may be several,
        or ``(rows, numbers) float32``.
        """
        inputs, lengths = padded(items)
        labels = np.concatenate([np.atleast_2d(item["labels"]) for item in items])
        inputs["labels"] = torch.from_numpy(labels if labels.dtype == np.float32 else labels.astype(np.int64))
        return Batch(inputs, len(items), sum(lengths), lengths)

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """Summed over rows, in float32: cross entropy; with several labels the mean of their binary cross entropies;
        the mean square of the numbers' errors.

        ``outputs`` carries ``logits`` ``(rows, labels) float32`` with their graph.
        """
        logits = self._logits(model, batch)
        smoothing = ctx.label_smoothing if model.training else 0.0
        labels = batch.inputs["labels"]
        weights = self._weights.to(logits.device) if self._weights is not None else None
        if self.options.kind == "single":
            known = self.known((*ctx.earlier, *ctx.taught))
            total = cross_entropy(logits, labels[:, 0], known, weights, smoothing)
        elif self.options.kind == "multiple":
            targets = torch.lerp(labels.float(), torch.full_like(logits, 0.5), smoothing)
            total = (
                F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none").mean(1).sum()
            )
        else:
            total = F.mse_loss(logits, labels, reduction="none").mean(1).sum()
        return Loss(total, batch.count, {"logits": logits})

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        """Logits beside labels, or numbers beside numbers."""
        logits, labels = self._logits(model, batch), batch.inputs["labels"]
        if self.options.kind == "regression":
            return Predictions("scalars", logits, labels)
        references = labels[:, 0] if self.options.kind == "single" else labels
        logits = predicted(logits, self.known((*ctx.earlier, *ctx.taught)))
        return Predictions("classes", logits, references, self.labels.names)

    def known(self, tasks: Iterable[Task]) -> tuple[int, ...] | None:
        return known_outputs(self, tasks)

    @torch.no_grad()
    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Labels drawn from the model's softmax, or each from its sigmoid; numbers from the normal distribution whose
        negative log-likelihood is the loss: its variance is half the count of numbers.
        """
        logits, old = self._logits(model, batch), batch.inputs["labels"]
        if self.options.kind == "single":
            drawn = draw_classes(logits, generator)[:, None]
        elif self.options.kind == "multiple":
            level = torch.rand(logits.shape, generator=generator, device=generator.device).to(logits.device)
            drawn = level < logits.sigmoid()
        else:
            noise = torch.randn(logits.shape, generator=generator, device=generator.device).to(logits.device)
            drawn = logits + noise * math.sqrt(logits.shape[1] / 2)
        return replace(batch, inputs={**batch.inputs, "labels": drawn.to(old.dtype)})

    @torch.no_grad()
    def all_targets(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Batch]]:
        """Each label, where a row has one."""
        probabilities, old = self._logits(model, batch).softmax(-1), batch.inputs["labels"]
        return [
            (chance, replace(batch, inputs={**batch.inputs, "labels": torch.full_like(old, label)}))
            for label, chance in enumerate(probabilities.unbind(1))
        ]

    @cached_property
    def labels(self) -> Labels:
        """The labels in order."""
        return Labels(self.options.labels or ())

    @cached_property
    def _weights(self) -> Tensor | None:
        return in_order(self.options.class_weights, self.labels)

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = outputs_of(model, batch).logits.float()
        if logits.shape[1] != batch.inputs["labels"].shape[1] and self.options.kind != "single":
            raise UserError(
                f"the model has {logits.shape[1]} outputs, a row {batch.inputs['labels'].shape[1]} numbers or labels",
                "name them in the objective's `labels`",
            )
        return logits

    def _target(self, row: Row) -> np.ndarray:
        column, kind = self.options.label, self.options.kind
        if kind == "regression":
            return _numbers(present(row, column), column, len(self.labels.names))
        if kind == "single":
            return target_of(row, column, self.labels)
        value = present(row, column)
        if not isinstance(value, list):
            raise UserError(f"column `{column}` holds no list of labels, but {value!r:.60}", 'write a list: ["a", "b"]')
        found = np.zeros((1, len(self.labels.names)), np.int8)
        found[0, [self.labels.index(each) for each in value]] = 1
        return found

    def _numbers(self, rows: Any) -> tuple[str, ...]:
        """Names for the numbers of a row, as many as the first row has."""
        value = rows[0][self.options.label]
        column = self.options.label
        return tuple(f"{column}_{index}" for index in range(len(value))) if isinstance(value, list) else (column,)


def _numbers(value: Any, column: str, count: int) -> np.ndarray:
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise UserError(f"column `{column}` holds no number, but {value!r:.60}", "write numbers as numbers")
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"column `{column}` holds {value!r:.60}, which is not finite", "remove the row")
    if len(numbers) != count:
        raise UserError(f"column `{column}` holds {len(numbers)} numbers, where others hold {count}", "mend the row")
    return np.array([numbers], np.float32)
