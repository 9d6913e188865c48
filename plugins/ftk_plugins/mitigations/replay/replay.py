"""Experience replay: keeps a seeded choice of each earlier task's rows and offers them to the mixer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ftk import UserError
from ftk.parts import Context, Mitigation, Source, State, Task

from .options import ReplayOptions


class Replay(Mitigation):
    """Rows of earlier tasks as a share of the training mix (Rolnick et al. 2019).

    Its state is the row numbers it chose, by task; the rows themselves come from the tasks.
    """

    def __init__(self, options: ReplayOptions) -> None:
        self.options = options
        self._kept: dict[str, list[int]] = {}

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose the rows of ``task`` that are kept, all of equal chance.

        Raises:
            UserError: the task has no training rows.
        """
        rows = len(task.train)
        if rows == 0:
            raise UserError(
                f"mitigation replay: {task.train.origin} has no rows, nothing of `{task.name}` to replay",
                "give the task training rows, or drop the mitigation",
            )
        size = self.options.buffer_size
        count = rows if size == "all" else min(size, rows)
        chosen = torch.randperm(rows, generator=ctx.generator("replay", task.name))[:count]
        self._kept[task.name] = sorted(chosen.tolist())

    def sources(self, ctx: Context) -> Sequence[Source]:
        """One source for each earlier task that is replayed; their shares add up to the option's."""
        chosen = self.options.tasks or self._kept
        tasks = [task for task in ctx.earlier if task.name in self._kept and task.name in chosen]
        weights = [len(self._kept[task.name]) if self.options.by == "rows" else 1 for task in tasks]
        return [
            Source(
                name=task.name,
                items=task.train.subset(self._kept[task.name]).items,
                share=self.options.share * weight / sum(weights),
                objective=task.objective,
            )
            for task, weight in zip(tasks, weights, strict=True)
        ]

    def report(self) -> dict[str, Any]:
        return {"rows": {name: len(indices) for name, indices in self._kept.items()}}

    def state_dict(self) -> State:
        return {name: list(indices) for name, indices in self._kept.items()}

    def load_state_dict(self, state: State) -> None:
        if not all(isinstance(indices, list) for indices in state.values()):
            raise ValueError("replay: a state must be lists of row numbers by task")
        self._kept = {name: [int(index) for index in indices] for name, indices in state.items()}
