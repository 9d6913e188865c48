"""A model that answers what it is told: rows with their predictions written into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ftk.parts import Batch, Context, Evaluator, Metric, Predictions, Row
from ftk.testing import toy_context, toy_task
from tests.points import Points

NAMES = ("ant", "bee", "cat", "dog")


class Told(Points):
    """``point`` is what the model predicts, ``target`` what is right: numbers of classes, 0 and 1, or numbers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def target(self, row: Row) -> np.ndarray:
        return np.array(row["label"], np.float32 if self.kind == "scalars" else np.int64)

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        values, right = batch.inputs["point"], batch.inputs["target"]
        if self.kind == "scalars":
            return Predictions("scalars", values, right)
        return Predictions("classes", values, right[:, 0] if self.kind == "single" else right, NAMES)


def measured(evaluator: Evaluator, kind: str, values: Any, right: Any, **context: Any) -> dict[str, Metric]:
    """What the evaluator makes of these predictions, by the metrics' names."""
    rows = [{"point": _list(value), "label": _list(label)} for value, label in zip(values, right, strict=True)]
    objective, model = Told(kind), nn.Identity()
    with torch.no_grad():
        metrics = evaluator.measure(model, toy_task(rows, objective), toy_context(model, objective, **context))
    return {metric.name: metric for metric in metrics}


def _list(value: Any) -> Sequence[Any]:
    return np.atleast_1d(value).tolist()


def one_class(seed: int = 0, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than not, and right classes, some rarer than others."""
    random = np.random.default_rng(seed)
    right = random.choice(classes, rows, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    return random.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[right], right


def several_classes(seed: int = 0, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`one_class`, where any number of classes may hold; the last never does and is never predicted."""
    random = np.random.default_rng(seed)
    right = (random.random((rows, 4)) < [0.2, 0.5, 0.4, 0.0]).astype(int)
    return random.normal(size=(rows, 4)) + 2 * right - [1, 1, 1, 9], right
