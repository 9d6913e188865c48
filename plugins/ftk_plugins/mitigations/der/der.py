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
from ftk_plugins.mitigations.der.options import DerOptions
from ftk_plugins.mitigations.predicted import can_refer, rows_of_targets
from ftk_plugins.mitigations.sharing import divided, evenly
from ftk_plugins.mitigations.stored import Stored, predict_all
from ftk_plugins.mitigations.taught import Fixed, Taught, refuse_unteachable
from ftk_plugins.objectives.token_loss import sum_of_logits


class Der(Mitigation):
    """Rows of earlier tasks with a loss of their own, ``weight · distance + label_weight · loss`` (Buzzega et al. 2020,
    eq. 6), where the distance is that of their logits from those that are kept.

    Its state is the numbers of the rows, by task, in the order in which they are kept, and what is kept of each.
    """

    def __init__(self, options: DerOptions) -> None:
        self.options = options
        self.knob: Knob = Knob(options.weight)
        self._kept: dict[str, list[int]] = {}
        self._stored: dict[str, Stored] = {}

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose rows of ``task``, and keep what the model, which has just learned them, says of each.

        Raises:
            UserError: the task has no rows, or nothing is predicted of them.
        """
        options = self.options
        if options.tasks and task.name not in options.tasks:
            return
        refuse_unteachable(task, "der")
        pieces = task.train.pieces
        if options.choice == "reservoir":
            assert options.memory is not None
            chosen = self._flow_by(task, len(pieces), options.memory, ctx)
        else:
            chosen = choosing.at_random(len(pieces), ctx, "der", task.name)
            if options.choice == "balanced":
                chosen = choosing.balanced(chosen, choosing.classes_of(task, chosen, None, "der", needed=True))
            most = options.memory or (len(pieces) if options.buffer_size == "all" else int(options.buffer_size))
            chosen = chosen[:most]
        assert ctx.adaptation is not None
        with ctx.adaptation.reference() if can_refer(ctx) else nullcontext():
            self._stored[task.name] = predict_all(
                Fixed(pieces, chosen), task.objective, ctx.model, ctx, top_k=options.top_k
            )
        self._kept[task.name] = chosen
        if options.memory is not None and options.choice != "reservoir":
            sizes = evenly(options.memory, [len(rows) for rows in self._kept.values()])
            for name, size in zip(tuple(self._kept), sizes, strict=True):
                self._shrink(name, range(size))

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
        return {"rows": {name: list(rows) for name, rows in self._kept.items()}, **stored}

    def load_state_dict(self, state: State) -> None:
        self._kept = {name: [int(row) for row in rows] for name, rows in state.get("rows", {}).items()}
        self._stored = {name: Stored.of_state(state, name) for name in self._kept}
        known = {key for name, stored in self._stored.items() for key in stored.state(name)}
        if strange := state.keys() - {"rows"} - known:
            raise ValueError(f"der: a state does not have {', '.join(sorted(strange))}")

    def _distance(self, task: Task, batch: Batch, loss: Loss, rows: Sequence[int], ctx: Context) -> Tensor:
        """Of the logits of a batch from those kept: squared of labels, in nats of tokens."""
        stored, head = self._stored[task.name], task.objective.head
        lines = stored.lines(rows, rows_of_targets(task.objective, batch))
        apart = stored.squares(lines) if head.labels else stored.apart(head, lines)
        return self.knob.value * sum_of_logits(loss.outputs, apart)

    def _flow_by(self, task: Task, rows: int, size: int, ctx: Context) -> list[int]:
        """Let the rows of a task go by the reservoir: which of them it holds then; others' rows make room."""
        before = [earlier for earlier in ctx.earlier if earlier.name in self._kept]
        slots = [(name, place) for name, kept in self._kept.items() for place in range(len(kept))]
        rng = np.random.default_rng(ctx.derived_seed("der", task.name))
        seen = sum(len(earlier.train.pieces) for earlier in before)
        held = choosing.reservoir(slots, seen, task.name, rows, size, rng)
        for name in tuple(self._kept):
            self._shrink(name, sorted(place for whose, place in held if whose == name))
        return sorted(row for whose, row in held if whose == task.name)

    def _shrink(self, name: str, places: Sequence[int]) -> None:
        """Keep no more of a task than what stands at these places."""
        self._kept[name] = [self._kept[name][place] for place in places]
        self._stored[name] = self._stored[name].of_items(places)

    def _weights(self, tasks: Sequence[Task]) -> list[int]:
        """A reservoir's tasks divide the share by their rows, as in the paper; others evenly."""
        by_rows = self.options.choice == "reservoir"
        return [len(self._kept[task.name]) if by_rows else 1 for task in tasks]
