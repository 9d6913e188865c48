"""Rows that hold numbers and no text: an objective that tells classes, and one that gives numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row

LABELS = ("red", "green", "blue")
GENERATOR = np.random.default_rng(0)
ROWS = [
    {"point": GENERATOR.normal(size=4).tolist(), "label": int(GENERATOR.integers(3)), "target": [float(index), 1.0]}
    for index in range(11)
]


def model(outputs: int = 3) -> nn.Module:
    """A linear map of points; the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, outputs).eval()


class Points(Objective):
    """The class of a point, from the logits of :func:`model`."""

    column = "label"

    @property
    def head(self) -> Head:
        return Head("sequence_classification", LABELS)

    def texts(self, row: Row) -> Iterator[str]:
        return iter(())

    def encode(self, row: Row, processor: Any) -> Features:
        if row.get("point") is None or row.get(self.column) is None:
            raise UserError("the row is no point", "give it `point` and a target")
        return {"point": np.array(row["point"], np.float32), "target": self.target(row)}

    def target(self, row: Row) -> np.ndarray:
        return np.array([row["label"]], np.int64)

    def collate(self, items: Sequence[Features]) -> Batch:
        names = ("point", "target")
        columns = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in names}
        return Batch(columns, len(items), len(items))

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        total = nn.functional.cross_entropy(model(batch.inputs["point"]), batch.inputs["target"][:, 0], reduction="sum")
        return Loss(total, batch.count)

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        return Predictions("classes", model(batch.inputs["point"]), batch.inputs["target"][:, 0], LABELS)


class Numbers(Points):
    """Two numbers of a point."""

    column = "target"

    def target(self, row: Row) -> np.ndarray:
        return np.array(row["target"], np.float32)

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        return Predictions("scalars", model(batch.inputs["point"]), batch.inputs["target"])


def logits(found: nn.Module) -> Tensor:
    """What a model says of all rows."""
    with torch.no_grad():
        outputs: Tensor = found(torch.tensor([row["point"] for row in ROWS]))
    return outputs


class Pictures(Points):
    """The class of a picture of 6 by 6 pixels in two channels, which :func:`convolutional` tells."""

    def encode(self, row: Row, processor: Any) -> Features:
        pixels = np.resize(np.array(row["point"], np.float32), (2, 6, 6)) + np.linspace(
            0, 1, 36, dtype=np.float32
        ).reshape(6, 6)
        return {"point": pixels, "target": self.target(row)}


def convolutional(groups: int = 1) -> nn.Module:
    """Three convolutions, one strided and dilated, and a linear layer; the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(),
            nn.Conv2d(4, 4, 2, stride=2, groups=groups, bias=False), nn.Tanh(),
            nn.Conv2d(4, 6, 2, dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3),
        ).eval()  # fmt: skip
