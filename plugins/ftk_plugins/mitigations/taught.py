"""Earlier rows under a loss of their own: what their objective makes of them, beside what a model once said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from ftk import RunFailed, UserError
from ftk.parts import Batch, ComparingObjective, Context, Features, Head, Loss, Objective, Row, Task, lengths_of
from ftk_plugins.mitigations.earlier import refuse_empty
from ftk_plugins.objectives.model_inputs import base_model, without_values

Lesson = Callable[[Batch, Loss, Sequence[int], Context], Tensor]
"""What a model once said, held against what it says now: of a batch, its loss, which items its rows are, and the
moment, a SUM over the targets, with its graph."""


class Taught(Objective):
    """The objective of an earlier task, for the items of one source: its loss is a lesson, and a share of its own.

    Args:
        inner: the objective of the task.
        lesson: the first part of the loss.
        label_weight: of the second, the task's own loss; 0: left out.
    """

    def __init__(self, inner: Objective, lesson: Lesson, label_weight: float) -> None:
        self.inner = inner
        self.lesson = lesson
        self.label_weight = label_weight

    @property
    def head(self) -> Head:
        return self.inner.head

    def begin(self, ctx: Context) -> None:
        self.inner.begin(ctx)

    def identity(self) -> str | None:
        return self.inner.identity()

    def texts(self, row: Row) -> Iterator[str]:
        return self.inner.texts(row)

    def encode(self, row: Row, processor: Any) -> Features:
        return self.inner.encode(row, processor)

    def member(self, item: Features) -> str:
        return self.inner.member(item)

    def collate(self, items: Sequence[Features]) -> Batch:
        return self.inner.collate(items)

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """``label_weight`` times the loss of the task, and the lesson.

        Raises:
            RunFailed: the batch does not say which items it holds.
        """
        loss = self.inner.loss(model, batch, ctx)
        rows = [number for _, number in batch.origins]
        if not rows:
            if not without_values(base_model(ctx.model)):
                raise RunFailed("rows of a memory came without their numbers, by which what was said of them is found")
            rows = [0] * len(next(iter(batch.inputs.values())))
        total = self.lesson(batch, loss, rows, ctx)
        return replace(loss, total=total + self.label_weight * loss.total if self.label_weight else total)


class Fixed(Sequence[Features]):
    """Items that are never varied anew: of each there is one version, that of which something was said.

    Args:
        items: all there are.
        chosen: which of them, in this order; None: all.
    """

    def __init__(self, items: Sequence[Features], chosen: Sequence[int] | None = None) -> None:
        self._items = items
        self._chosen = np.asarray(range(len(items)) if chosen is None else chosen, np.int64)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._items[int(each)] for each in self._chosen[index]]
        return self._items[int(self._chosen[index])]

    @property
    def lengths(self) -> np.ndarray:
        """Positions of each item."""
        found: np.ndarray = lengths_of(self._items)[self._chosen]
        return found

    @property
    def digest(self) -> str:
        """Of all that the items hold, where they know it; else there is none, and whoever asks reads them."""
        known: str = self._items.digest  # type: ignore[attr-defined]
        return hashlib.sha256(known.encode() + self._chosen.tobytes()).hexdigest()


def refuse_unteachable(task: Task, name: str) -> None:
    """Raise ``UserError`` where a task has no rows, or its objective compares rows and tells no logits."""
    refuse_empty(name, task, f"nothing of `{task.name}` to keep")
    if isinstance(task.objective, ComparingObjective):
        raise UserError(
            f"mitigation {name}: the objective of `{task.name}` compares rows and predicts no classes or tokens",
            "name the other tasks in the mitigation's `tasks`, or keep this one by `replay`",
        )
