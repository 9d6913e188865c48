"""Predicted classes beside the right ones, and the counts that scores of classes are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ftk import UserError
from ftk.parts import Context, Task, predictions

MOST_LABELS = 100
"""Labels up to which a confusion matrix is told."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was predicted of some rows.

    Attributes:
        labels: the names of the classes.
        right: ``(rows,) int64``, or ``(rows, classes) bool`` where several classes may hold.
        guessed: as ``right``.
    """

    labels: tuple[str, ...]
    right: np.ndarray
    guessed: np.ndarray

    def hits(self) -> np.ndarray:
        """Whether each row is right, with several classes in all of them: ``(rows,) bool``."""
        same = self.right == self.guessed
        hits: np.ndarray = same if same.ndim == 1 else same.all(1)
        return hits

    def among(self, rows: np.ndarray) -> Outcomes:
        """Those of some rows, by their numbers."""
        return Outcomes(self.labels, self.right[rows], self.guessed[rows])

    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How often each class was predicted rightly, was predicted, and is right: ``(classes,) int64`` each."""
        if self.right.ndim == 2:
            return (self.right & self.guessed).sum(0), self.guessed.sum(0), self.right.sum(0)
        classes = len(self.labels)
        met, said, true = (
            np.bincount(column, minlength=classes)
            for column in (self.right[self.right == self.guessed], self.guessed, self.right)
        )
        return met, said, true

    def confusion(self) -> dict[str, Any]:
        """For the report: how often class ``i`` was predicted as class ``j``; nothing where several may hold."""
        classes = len(self.labels)
        if self.right.ndim == 2 or classes > MOST_LABELS:
            return {}
        table = np.bincount(self.right * classes + self.guessed, minlength=classes**2)
        return {"labels": list(self.labels), "confusion": table.reshape(classes, classes).tolist()}


def outcomes(task: Task, model: nn.Module, ctx: Context, threshold: float | None) -> Outcomes:
    """What ``model`` predicts of the test rows of ``task``.

    Args:
        task: its objective gives class predictions.
        model: in ``eval`` mode.
        ctx: the moment.
        threshold: the probability from which on a class holds, where several may; None: one half.

    Raises:
        UserError: a threshold is given and each row has one class; or there are no test rows.
    """
    found = predictions(task, model, ctx)
    values = found.values.double().numpy()
    labels = found.labels or tuple(map(str, range(values.shape[1])))
    if found.references.ndim == 2:
        held = 0.5 if threshold is None else threshold
        return Outcomes(labels, found.references.numpy().astype(bool), values > np.log(held / (1 - held)))
    if threshold is not None:
        raise UserError(
            f"task `{task.name}`: `threshold` acts where a row may have several classes, and here each has one",
            "leave it out",
        )
    return Outcomes(labels, found.references.numpy(), values.argmax(1))
