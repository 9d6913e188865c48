"""Which heads of the starting model are asked about the rows that a stage teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftk.parts import Batch, Context, Features, Loss, Objective, Task
from ftk_plugins.mitigations.predicted import as_read_by, can_read, rows_of_targets
from ftk_plugins.objectives.model_inputs import base_model
from ftk_plugins.objectives.tokens import TokenObjective


@dataclass(frozen=True)
class Lesson:
    """A head of the starting model that is asked about the rows of a task.

    Attributes:
        name: of the task that taught the head.
        objective: that task's.
        taught: the objective of the rows.
    """

    name: str
    objective: Objective
    taught: Objective

    @property
    def own(self) -> bool:
        """Whether it is the head that learns the rows, so that what it says of them is in their loss."""
        return self.objective is self.taught

    def collate(self, items: Sequence[Features]) -> Batch:
        """Rows of the task, as the head reads them."""
        batch = self.taught.collate(items)
        return batch if self.own else as_read_by(self.objective, batch)

    def asked(self, batch: Batch, loss: Loss, ctx: Context) -> tuple[Batch, Context, Mapping[str, Tensor]]:
        """A batch of the task as the head reads it, the context with its model, and what that says, with its graph."""
        if self.own:
            return batch, ctx, loss.outputs
        read, here = as_read_by(self.objective, batch), ctx.through(self.objective)
        with ctx.autocast():
            return read, here, self.objective.loss(here.model, read, here).outputs

    def targets(self, batch: Batch, rows: int) -> Tensor:
        """How many targets each row of a batch of the task has in its own loss, ``(rows,)``."""
        return torch.bincount(rows_of_targets(self.taught, batch), minlength=rows)


def lessons_of(task: Task, ctx: Context, names: Sequence[str]) -> list[Lesson]:
    """The heads that are asked about a task's rows: those that have learned something and can read them.

    The task's own head has, where an earlier task had the same one, or where it predicts the tokens of a vocabulary
    and the model was loaded: what has labels, and no model from scratch, knows anything before its first stage. Of
    each other head the first of the earlier tasks stands for all that share it.

    Args:
        task: whose rows.
        ctx: the moment.
        names: the earlier tasks that count; empty: all.
    """
    earlier = [each for each in ctx.earlier if not names or each.name in names]
    own = task.objective.head
    loaded = bool(getattr(base_model(ctx.model), "name_or_path", "")) and not own.labels and not names
    found = []
    if loaded or any(each.objective.head == own for each in earlier):
        found.append(Lesson(task.name, task.objective, task.objective))
    known = {own}
    for each in earlier:
        head = each.objective.head
        told = bool(head.labels) or isinstance(each.objective, TokenObjective)  # or its loss has other logits, or none
        if told and head not in known and ctx.heads and head in ctx.heads.models and can_read(head, own):
            known.add(head)
            found.append(Lesson(each.name, each.objective, task.objective))
    return found
