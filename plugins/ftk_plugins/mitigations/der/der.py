"""Dark Experience Replay: a memory of earlier rows, each with what the model said of it when it had learned it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ftk.parts import Batch, Context, Knob, Loss, Mitigation, Source, State, Task
from ftk_plugins.mitigations import choosing
from ftk_plugins.mitigations.der.along import Along
from ftk_plugins.mitigations.der.options import DerOptions
from ftk_plugins.mitigations.predicted import can_refer, rows_of_targets
from ftk_plugins.mitigations.sharing import divided, evenly
from ftk_plugins.mitigations.stored import Stored
from ftk_plugins.mitigations.taught import Fixed, Taught, refuse_unteachable
from ftk_plugins.objectives.token_loss import sum_of_logits

_ALONG = "along/"


class Der(Mitigation):
    """Rows of earlier tasks with a loss of their own, ``weight · distance + label_weight · loss`` (Buzzega et al. 2020,
    eq. 6), where the distance is that of their logits from those that are kept.

    Its state is the numbers of the rows, by task, in the order in which they are kept, and what is kept of each; the
    same of the rows that a stage is asked about while it teaches them.
    """

    def __init__(self, options: DerOptions) -> None:
        self.options = options
        self.knob: Knob = Knob(options.weight)
        self._kept: dict[str, list[int]] = {}
        self._stored: dict[str, Stored] = {}
        self._along: dict[str, Along] = {}

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose rows of ``task``, and keep what the model, which has just learned them, says of each.

        Raises:
            UserError: the task has no rows, or nothing is predicted of them.
        """
        options = self.options
        if not self._guards(task):
            return
        refuse_unteachable(task, "der")
        along = self._along.pop(task.name, None)
        chosen = self._ranked(task, ctx) if along is None else along.rows
        if options.memory is not None and options.choice == "reservoir":
            chosen = chosen[: self._flow_by(task, options.memory, ctx)]
        assert ctx.adaptation is not None
        with ctx.adaptation.reference() if can_refer(ctx) else nullcontext():
            self._stored[task.name] = (along or Along(chosen)).of_rows(task, chosen, ctx, options.top_k)
        self._kept[task.name] = chosen
        if options.memory is not None and options.choice != "reservoir":
            sizes = evenly(options.memory, [len(rows) for rows in self._kept.values()])
            for name, size in zip(tuple(self._kept), sizes, strict=True):
                self._shrink(name, range(size))

    def begin(self, ctx: Context) -> None:
        """Choose the rows that are asked about while the stage teaches them.

        Raises:
            UserError: as :meth:`remember`.
        """
        if self.options.when == "along":
            for task in ctx.taught:
                if self._guards(task) and task.name not in self._along:
                    refuse_unteachable(task, "der")
                    self._along[task.name] = Along(self._ranked(task, ctx))

    def after_step(self, ctx: Context) -> None:
        for task in ctx.taught:
            if task.name in self._along:
                self._along[task.name].ask(task, ctx, self.options.top_k)

    def sources(self, ctx: Context) -> Sequence[Source]:
        """One source for each earlier task of which rows are kept; their shares add up to the option's."""
        tasks = [task for task in ctx.earlier if self._kept.get(task.name)]
        return [
            Source(
                name=task.name,
                items=Fixed(task.train.pieces, self._kept[task.name]),
                share=share,
                objective=Taught(task.objective, partial(self._distance, task), self.options.label_weight),
            )
            for task, share in zip(tasks, divided(self.options.share, self._weights(tasks)), strict=True)
        ]

    def report(self) -> dict[str, Any]:
        return {
            "rows": {name: len(rows) for name, rows in self._kept.items()},
            "kept_bytes": sum(stored.bytes for stored in self._stored.values()),
        }

    def state_dict(self) -> State:
        stored = {key: value for name, each in self._stored.items() for key, value in each.state(name).items()}
        along = {key: value for name, each in self._along.items() for key, value in each.state(_ALONG + name).items()}
        rows = {name: list(rows) for name, rows in self._kept.items()}
        return {"rows": rows, "along": list(self._along), **stored, **along}

    def load_state_dict(self, state: State) -> None:
        self._kept = {name: [int(row) for row in rows] for name, rows in state.get("rows", {}).items()}
        self._stored = {name: Stored.of_state(state, name) for name in self._kept}
        self._along = {name: Along.of_state(state, _ALONG + name) for name in state.get("along", [])}
        if strange := state.keys() - self.state_dict().keys():
            raise ValueError(f"der: a state does not have {', '.join(sorted(strange))}")

    def _guards(self, task: Task) -> bool:
        return not self.options.tasks or task.name in self.options.tasks

    def _ranked(self, task: Task, ctx: Context) -> list[int]:
        """Rows of a task in the order in which they are to be kept, as many as there may be."""
        options, rows = self.options, len(task.train.pieces)
        order = choosing.at_random(rows, ctx, "der", task.name)
        if options.choice == "balanced":
            order = choosing.balanced(order, choosing.classes_of(task, order, None, "der", needed=True))
        return order[: options.memory or (rows if options.buffer_size == "all" else int(options.buffer_size))]

    def _distance(self, task: Task, batch: Batch, loss: Loss, rows: Sequence[int], ctx: Context) -> Tensor:
        """Of the logits of a batch from those kept: squared of labels, in nats of tokens."""
        stored, head = self._stored[task.name], task.objective.head
        lines = stored.lines(rows, rows_of_targets(task.objective, batch))
        apart = stored.squares(lines) if head.labels else stored.apart(head, lines)
        return self.knob.value * sum_of_logits(loss.outputs, apart)

    def _flow_by(self, task: Task, size: int, ctx: Context) -> int:
        """Let the rows of a task go by the reservoir: how many of them it holds then; others' rows make room."""
        before = [earlier for earlier in ctx.earlier if earlier.name in self._kept]
        slots = [(name, place) for name, kept in self._kept.items() for place in range(len(kept))]
        rng = np.random.default_rng(ctx.derived_seed("der", task.name))
        seen = sum(len(earlier.train.pieces) for earlier in before)
        held = choosing.reservoir(slots, seen, task.name, len(task.train.pieces), size, rng)
        for name in tuple(self._kept):
            self._shrink(name, sorted(place for whose, place in held if whose == name))
        return sum(whose == task.name for whose, _ in held)

    def _shrink(self, name: str, places: Sequence[int]) -> None:
        """Keep no more of a task than what stands at these places."""
        self._kept[name] = [self._kept[name][place] for place in places]
        self._stored[name] = self._stored[name].of_items(places)

    def _weights(self, tasks: Sequence[Task]) -> list[int]:
        """A reservoir's tasks divide the share by their rows, as in the paper; others evenly."""
        by_rows = self.options.choice == "reservoir"
        return [len(self._kept[task.name]) if by_rows else 1 for task in tasks]
