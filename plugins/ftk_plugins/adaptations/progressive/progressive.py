"""Gradual unfreezing: the head first, then block after block, towards the input or as they matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from ftk import UserError
from ftk.parts import Context, State
from ftk_plugins.adaptations.layerwise_lr.layerwise_lr import LayerwiseTuning
from ftk_plugins.adaptations.progressive.importance import importance
from ftk_plugins.adaptations.progressive.options import ProgressiveOptions

HALF = 0.5
"""After which share of a stage all is thawed where nothing is said."""

ROWS = 100
"""Of each task, where nothing is said."""

ORDER = "order of thawing"
"""Its name in a state; the others are weights'."""


class ProgressiveTuning(LayerwiseTuning):
    """Full tuning of which some blocks begin later, by default the lower ones (Howard & Ruder 2018, section 3.3).

    What is trained in a step follows from the step's number alone, and from an order that is measured once, before the
    first step, and kept in the state. Drift, reference and scaling are those of full
    tuning over all weights that are ever trained; one that has not been thawed has no drift yet.
    """

    name = "progressive"

    def __init__(self, options: ProgressiveOptions) -> None:
        super().__init__(options)
        self.pace = options

    def attach(self, model: Any) -> nn.Module:
        attached = super().attach(model)
        self._levels = sorted({self.heights[parameter] for parameter in self._trained.values()})
        self._order: list[int] | None = None
        self._first = len([height for height in self._levels if height <= self.pace.first_blocks]) or 1
        self._thaw(self._levels[: self._first])
        return attached

    def before_step(self, ctx: Context) -> bool:
        """Thaw what is due; before the first step, find out in which order.

        Raises:
            UserError: the stage is too short for ``thaw_every``; or what matters to a task cannot be measured.
        """
        every, waiting = self.pace.thaw_every, len(self._levels) - self._first
        if every is not None and every * waiting >= ctx.steps:
            raise UserError(
                f"adaptation.thaw_every: {waiting} thaws, {every} steps apart, do not fit into {ctx.steps} steps",
                "Lower it, or write `thawed_by`, a share of the stage.",
            )
        if self.pace.order != "depth" and self._order is None and ctx.step == 0:
            self._order = self._measured(ctx)
        order = self._order or self._levels
        due = order[: self._first]
        for number, height in enumerate(order[self._first :], start=1):
            at = number * every if every else math.ceil(number / waiting * (self.pace.thawed_by or HALF) * ctx.steps)
            if ctx.step >= min(at, ctx.steps - 1):
                due.append(height)
        return self._thaw(due)

    def state_dict(self) -> State:
        return super().state_dict() if self._order is None else {**super().state_dict(), ORDER: list(self._order)}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict({name: value for name, value in state.items() if name != ORDER})
        self._order = state.get(ORDER)

    def _measured(self, ctx: Context) -> list[int]:
        """What stands behind the last block, and then what matters most to the new or least to the old tasks."""
        tasks = ctx.taught if self.pace.order == "new" else ctx.earlier
        if not tasks or any(parameter.is_meta for parameter in self._trained.values()):
            return self._levels
        found = importance(tasks, ctx, self._trained, self.heights, self.pace.samples or ROWS)
        first = -1.0 if self.pace.order == "new" else 1.0
        order = sorted(self._levels, key=lambda height: (height != 0, first * found[height], height))
        blocks = max(self._levels)
        names = {0: "what stands behind the last block", blocks: "embeddings"}
        told = ", ".join(names.get(height, f"block {blocks - height}") for height in order)
        ctx.events("phase", text=f"{ctx.stage_name}: thaws in the order {told}")
        return order

    def _thaw(self, heights: Sequence[int]) -> bool:
        """Train what stands at these heights above the output; whether that is new."""
        before = [parameter.requires_grad for parameter in self._trained.values()]
        for parameter in self._trained.values():
            parameter.requires_grad_(self.heights[parameter] in heights)
        return before != [parameter.requires_grad for parameter in self._trained.values()]
