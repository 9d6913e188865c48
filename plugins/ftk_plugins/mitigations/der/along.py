"""Asking the model about rows while a stage teaches them, each at a moment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ftk.parts import Context, State, Task
from ftk_plugins.mitigations.stored import Stored, predict_all
from ftk_plugins.mitigations.taught import Fixed
from ftk_plugins.objectives.model_inputs import base_model, without_values


class Along:
    """What the model said of some rows of a task in the course of the stage that taught it.

    A reservoir over the rows that training draws holds a uniform choice of them in the end, each with what the model
    said when it came by: rows chosen evenly, asked at moments drawn evenly, are as likely as those, and no row is asked
    that will be given up again.

    Args:
        rows: of the task's pieces, in the order in which they are kept.
        asked: which of them the model was asked about, in the order of the answers.
        said: the answers; None: none yet.
    """

    def __init__(self, rows: Sequence[int], asked: Sequence[int] = (), said: Stored | None = None) -> None:
        self.rows = list(rows)
        self.asked = list(asked)
        self.said = said

    def ask(self, task: Task, ctx: Context, top_k: int) -> None:
        """Ask about the rows whose moment is the step just taken."""
        ctx = replace(ctx, check_interrupt=lambda: None)  # a step is not stopped in its middle
        moments = torch.randint(ctx.steps, (len(self.rows),), generator=ctx.generator("der along", task.name))
        if without_values(base_model(ctx.model)):  # a plan asks about the whole stage
            moments[:] = ctx.step
        self._add(task, [self.rows[place] for place in (moments == ctx.step).nonzero()[:, 0].tolist()], ctx, top_k)

    def of_rows(self, task: Task, rows: Sequence[int], ctx: Context, top_k: int) -> Stored:
        """What was said of these rows, in this order; those whose moment never came, as the stage ended before it,
        are asked about now."""
        known = set(self.asked)
        self._add(task, [row for row in rows if row not in known], ctx, top_k)
        assert self.said is not None
        places = {row: place for place, row in enumerate(self.asked)}
        return self.said.of_items([places[row] for row in rows])

    def state(self, name: str) -> State:
        """Under keys that begin with ``name/``."""
        said = {} if self.said is None else self.said.state(f"{name}/said")
        return {
            f"{name}/rows": torch.tensor(self.rows),
            f"{name}/asked": torch.tensor(self.asked, dtype=torch.long),
            **said,
        }

    @classmethod
    def of_state(cls, state: State, name: str) -> Along:
        """Take it back. Raises ``ValueError`` where it is not there."""
        rows, asked = state.get(f"{name}/rows"), state.get(f"{name}/asked")
        if not isinstance(rows, Tensor) or not isinstance(asked, Tensor):
            raise ValueError(f"a state has no rows of {name}")
        said = Stored.of_state(state, f"{name}/said") if len(asked) else None
        return cls(rows.tolist(), asked.tolist(), said)

    def _add(self, task: Task, rows: Sequence[int], ctx: Context, top_k: int) -> None:
        if rows:
            here = ctx.through(task.objective)
            said = predict_all(Fixed(task.train.pieces, rows), task.objective, here.model, here, top_k=top_k)
            self.said = said if self.said is None else self.said.followed_by(said)
            self.asked += rows
