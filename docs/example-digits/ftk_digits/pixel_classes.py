"""The objective `pixel_classes`: the digit that pixels show."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row
from ftk_digits.options import PixelClassesOptions

LABELS = tuple(str(digit) for digit in range(10))


class PixelClasses(Objective):
    """Cross entropy, one target for each row."""

    def __init__(self, options: PixelClassesOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        return Head("pixel_classes", LABELS)

    def texts(self, row: Row) -> Iterator[str]:
        return iter(())

    def encode(self, row: Row, processor: Any) -> Features:
        """``pixels (1, 64) float32``, of that shape so that a row counts as one position, and ``digit (1,) int64``."""
        pixels, digit = row.get("pixels"), row.get("digit")
        if not pixels or digit is None:
            raise UserError("a row needs `pixels` and `digit`", "use the data set `digits`")
        return {"pixels": np.array([pixels], np.float32), "digit": np.array([digit], np.int64)}

    def collate(self, items: Sequence[Features]) -> Batch:
        columns = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in ("pixels", "digit")}
        return Batch(columns, count=len(items), tokens=len(items))

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        logits = model(batch.inputs["pixels"]).float()
        total = F.cross_entropy(logits, batch.inputs["digit"][:, 0], reduction="sum")
        return Loss(total, batch.count, {"logits": logits})

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        return Predictions("classes", model(batch.inputs["pixels"]), batch.inputs["digit"][:, 0], LABELS)

    @torch.no_grad()
    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        shares = model(batch.inputs["pixels"]).softmax(-1).cpu()
        drawn = torch.multinomial(shares, 1, generator=generator).to(batch.inputs["digit"].device)
        return replace(batch, inputs={**batch.inputs, "digit": drawn})
