"""The objective `image_classification`: the label of an image, from the model's head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row
from ftk_plugins.objectives.drawing import draw_classes
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from ftk_plugins.objectives.labels import Labels, known_labels, target_of
from ftk_plugins.objectives.pictures import pixels_of

if TYPE_CHECKING:
    from datasets import Dataset


class ImageClassification(Objective):
    """One image, one label; the image goes through the model's image processor once, before it is cached."""

    def __init__(self, options: ImageClassificationOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        return Head("image_classification", self.options.labels or (), "single_label_classification")

    def completed(self, rows: Dataset) -> Mapping[str, Any]:
        """The names of the labels, where the options leave them to the rows.

        Raises:
            UserError: the column is missing, or its labels are not two at least.
        """
        return {} if self.options.labels is not None else {"labels": known_labels(rows, self.options.label, least=2)}

    def texts(self, row: Row) -> Iterator[str]:
        return iter(())

    def encode(self, row: Row, processor: Any) -> Features:
        """``pixel_values (channels, height, width) float32`` and ``labels (1,) int32``."""
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        targets = [target_of(row, self.options.label, self.labels) for row in rows]
        pixels = pixels_of(rows, self.options.image, processor)
        return [{"pixel_values": image, "labels": target} for image, target in zip(pixels, targets, strict=True)]

    def collate(self, items: Sequence[Features]) -> Batch:
        """``pixel_values (rows, channels, height, width) float32`` and ``labels (rows,) int64``."""
        pixels = torch.from_numpy(np.stack([item["pixel_values"] for item in items]))
        labels = torch.from_numpy(np.concatenate([item["labels"] for item in items]).astype(np.int64))
        return Batch({"pixel_values": pixels, "labels": labels}, len(items), len(items))

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """Cross entropy, summed over rows, in float32; smoothed while the model is in training mode.

        ``outputs`` carries ``logits`` ``(rows, labels) float32`` with their graph.
        """
        logits = self._logits(model, batch)
        smoothing = ctx.label_smoothing if model.training else 0.0
        total = F.cross_entropy(logits, batch.inputs["labels"], reduction="sum", label_smoothing=smoothing)
        return Loss(total, batch.count, {"logits": logits})

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        return Predictions("classes", self._logits(model, batch), batch.inputs["labels"], self.labels.names)

    @torch.no_grad()
    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        drawn = draw_classes(self._logits(model, batch), generator)
        return Batch({**batch.inputs, "labels": drawn}, batch.count, batch.tokens, batch.lengths)

    @cached_property
    def labels(self) -> Labels:
        """The labels in order."""
        return Labels(self.options.labels or ())

    @staticmethod
    def _logits(model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(pixel_values=batch.inputs["pixel_values"]).logits.float()
        return logits
