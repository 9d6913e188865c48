"""The objective `image_classification`: the label of an image, from the model's head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row, Task
from ftk_plugins.objectives.drawing import draw_classes
from ftk_plugins.objectives.image_classification.mixing import mixed
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from ftk_plugins.objectives.incremental import cross_entropy, known_outputs, predicted, taught_by
from ftk_plugins.objectives.labels import Labels, known_labels, need_column, target_of
from ftk_plugins.objectives.pictures import pixels_of, seen_anew

if TYPE_CHECKING:
    from datasets import Dataset


class ImageClassification(Objective):
    """One image, one label; the image goes through the model's image processor once, before it is cached."""

    def __init__(self, options: ImageClassificationOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        options = self.options
        return Head("image_classification", options.labels or (), "single_label_classification", options.head)

    def completed(self, rows: Dataset) -> Mapping[str, Any]:
        """The names of the labels, where the options leave them to the rows.

        Raises:
            UserError: the column is missing, or its labels are not two at least.
        """
        options = self.options
        if options.incremental and options.taught is None:
            need_column(rows, options.label)
            return {"taught": taught_by(rows, options.label, self.labels)}
        return {} if options.labels is not None else {"labels": known_labels(rows, options.label, least=2)}

    def texts(self, row: Row) -> Iterator[str]:
        return iter(())

    def encode(self, row: Row, processor: Any) -> Features:
        """``pixel_values (channels, height, width) float32`` and ``labels (1,) int32``."""
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        targets = [target_of(row, self.options.label, self.labels) for row in rows]
        pixels = pixels_of(rows, self.options.image, processor)
        return [{"pixel_values": image, "labels": target} for image, target in zip(pixels, targets, strict=True)]

    def augment(
        self, item: Features, draw: Callable[[], Features], processor: Any, rng: np.random.Generator
    ) -> Features:
        """The image seen anew, and mixed with another row's, seen anew too.

        Where it is mixed, there are beside ``labels`` also ``others (1,) int32``, the label of the other row,
        and ``shares (1,) float32``, the share of the row itself.
        """
        options = self.options

        def anew(one: Features) -> Features:
            return {**one, "pixel_values": seen_anew(one["pixel_values"], options, processor, rng)}

        return mixed(anew(item), lambda: anew(draw()), options.mixup, options.cutmix, rng)

    def collate(self, items: Sequence[Features]) -> Batch:
        """``pixel_values (rows, channels, height, width) float32`` and ``labels (rows,) int64``.

        Where any of the rows is mixed, also ``others (rows,) int64`` and ``shares (rows,) float32``.
        """
        inputs = {"pixel_values": torch.from_numpy(np.stack([item["pixel_values"] for item in items]))}
        inputs["labels"] = _numbers(items, "labels")
        if any("others" in item for item in items):
            whole = {"shares": np.ones(1, np.float32)}
            inputs["others"] = _numbers([{"others": item["labels"], **item} for item in items], "others")
            inputs["shares"] = torch.from_numpy(np.concatenate([{**whole, **item}["shares"] for item in items]))
        return Batch(inputs, len(items), len(items))

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """Cross entropy, summed over rows, in float32; smoothed while the model is in training mode.

        Of a mixed row it is that of both labels, each with its share. ``outputs`` carries ``logits``
        ``(rows, labels) float32`` with their graph.
        """
        logits, inputs = self._logits(model, batch), batch.inputs
        smoothing = ctx.label_smoothing if model.training else 0.0
        known = self.known((*ctx.earlier, *ctx.taught))
        if "others" not in inputs:
            total = cross_entropy(logits, inputs["labels"], known, smoothing=smoothing)
            return Loss(total, batch.count, {"logits": logits})
        own, others = (
            cross_entropy(logits, inputs[name], known, smoothing=smoothing, reduction="none")
            for name in ("labels", "others")
        )
        return Loss(torch.lerp(others, own, inputs["shares"]).sum(), batch.count, {"logits": logits})

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        logits = predicted(self._logits(model, batch), self.known((*ctx.earlier, *ctx.taught)))
        return Predictions("classes", logits, batch.inputs["labels"], self.labels.names)

    def known(self, tasks: Iterable[Task]) -> tuple[int, ...] | None:
        return known_outputs(self, tasks)

    @torch.no_grad()
    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        drawn = draw_classes(self._logits(model, batch), generator)
        inputs = {"pixel_values": batch.inputs["pixel_values"], "labels": drawn}
        return Batch(inputs, batch.count, batch.tokens, batch.lengths)

    @torch.no_grad()
    def all_targets(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Batch]]:
        probabilities, pixels = self._logits(model, batch).softmax(-1), batch.inputs["pixel_values"]
        return [
            (
                chance,
                replace(
                    batch, inputs={"pixel_values": pixels, "labels": torch.full_like(batch.inputs["labels"], label)}
                ),
            )
            for label, chance in enumerate(probabilities.unbind(1))
        ]

    @cached_property
    def labels(self) -> Labels:
        """The labels in order."""
        return Labels(self.options.labels or ())

    @staticmethod
    def _logits(model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(pixel_values=batch.inputs["pixel_values"]).logits.float()
        return logits


def _numbers(items: Sequence[Features], name: str) -> Tensor:
    """One number of each row, ``(rows,) int64``."""
    return torch.from_numpy(np.concatenate([item[name] for item in items]).astype(np.int64))
