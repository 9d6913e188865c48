"""Experience replay: keeps a seeded choice of each earlier task's rows and offers them to the mixer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftk.parts import Context, Mitigation, Source, State, Task
from ftk_plugins.mitigations import choosing
from ftk_plugins.mitigations.earlier import refuse_empty
from ftk_plugins.mitigations.sharing import divided, evenly

from .options import ReplayOptions


class Replay(Mitigation):
    """Rows of earlier tasks as a share of the training mix (Rolnick et al. 2019).

    Its state is the row numbers it chose, by task; the rows themselves come from the tasks. Where tasks share one
    memory the numbers stand in the order in which they are kept, those to be given up first at the end.
    """

    def __init__(self, options: ReplayOptions) -> None:
        self.options = options
        self._kept: dict[str, list[int]] = {}

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose the rows of ``task`` that are kept; where there is one memory, what others keep shrinks.

        Raises:
            UserError: the task has no training rows, or the choice needs of them what they do not have.
        """
        rows = len(task.train)
        refuse_empty("replay", task, f"nothing of `{task.name}` to replay")
        options = self.options
        if options.memory is None:
            size = rows if options.buffer_size == "all" else min(options.buffer_size, rows)
            self._kept[task.name] = sorted(self._ranked(task, ctx, size)[:size])
        elif options.choice == "reservoir":
            self._flow_by(task, ctx, options.memory)
        else:
            self._kept[task.name] = self._ranked(task, ctx, min(options.memory, rows))
            sizes = evenly(options.memory, [len(kept) for kept in self._kept.values()])
            for name, size in zip(self._kept, sizes, strict=True):
                self._kept[name] = self._kept[name][:size]

    def rehearse(self, task: Task, ctx: Context) -> None:
        """What the model would have to look at, it has not in a plan: any rows do."""
        shown = self.options
        if shown.choice in ("loss", "herding"):
            self.options = shown.model_copy(update={"choice": "random"})
        self.remember(task, ctx)
        self.options = shown

    def sources(self, ctx: Context) -> Sequence[Source]:
        """One source for each earlier task that is replayed; their shares add up to the option's."""
        chosen = self.options.tasks or self._kept
        tasks = [task for task in ctx.earlier if self._kept.get(task.name) and task.name in chosen]
        weights = [len(self._kept[task.name]) if self.options.by == "rows" else 1 for task in tasks]
        return [
            Source(
                name=task.name,
                items=choosing.items_of(task, self._kept[task.name]),
                share=share,
                objective=task.objective,
            )
            for task, share in zip(tasks, divided(self.options.share, weights), strict=True)
        ]

    def report(self) -> dict[str, Any]:
        return {"rows": {name: len(indices) for name, indices in self._kept.items()}}

    def state_dict(self) -> State:
        return {name: list(indices) for name, indices in self._kept.items()}

    def load_state_dict(self, state: State) -> None:
        if not all(isinstance(indices, list) for indices in state.values()):
            raise ValueError("replay: a state must be lists of row numbers by task")
        self._kept = {name: [int(index) for index in indices] for name, indices in state.items()}

    def _ranked(self, task: Task, ctx: Context, size: int) -> list[int]:
        """Rows of a task in the order in which they are to be kept, ``size`` of them at least where there are."""
        options, rows = self.options, choosing.at_random(len(task.train), ctx, "replay", task.name)
        if options.choice == "balanced":
            classes = choosing.classes_of(task, rows, options.class_column, "replay", needed=True)
            return choosing.balanced(rows, classes)
        if options.choice not in ("loss", "herding"):
            return rows
        looked = rows if options.candidates == "all" else rows[: max(options.candidates, size)]
        if options.choice == "loss":
            order = choosing.by_loss(choosing.losses_of(task, looked, ctx), options.prefer)
            return [looked[index] for index in order.tolist()]
        features = choosing.features_of(task, looked, ctx, "replay")
        classes = choosing.classes_of(task, looked, options.class_column, "replay", needed=False)
        herded: list[int] = []
        for label in dict.fromkeys(classes.values()):
            its = [index for index, row in enumerate(looked) if classes[row] == label]
            herded += [looked[its[index]] for index in choosing.herded(features[its], size)]
        return choosing.balanced(herded, classes)

    def _flow_by(self, task: Task, ctx: Context, size: int) -> None:
        """Let the rows of a task go by the reservoir."""
        before = [earlier for earlier in ctx.earlier if earlier.name in self._kept]
        slots = [(name, row) for name, rows in self._kept.items() for row in rows]
        rng = np.random.default_rng(ctx.derived_seed("replay", task.name))
        seen = sum(len(earlier.train) for earlier in before)
        self._kept[task.name] = []
        held = choosing.reservoir(slots, seen, task.name, len(task.train), size, rng)
        self._kept = {name: sorted(row for whose, row in held if whose == name) for name in self._kept}
