"""Gradual unfreezing: the head first, then block after block towards the input."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ftk import UserError
from ftk.parts import Context
from ftk_plugins.adaptations.layerwise_lr.layerwise_lr import LayerwiseTuning
from ftk_plugins.adaptations.progressive.options import ProgressiveOptions

HALF = 0.5
"""After which share of a stage all is thawed where nothing is said."""


class ProgressiveTuning(LayerwiseTuning):
    """Full tuning of which the lower blocks begin later (Howard & Ruder 2018, section 3.3).

    What is trained in a step follows from the step's number alone. Drift, reference and scaling are those of full
    tuning over all weights that are ever trained; one that has not been thawed has no drift yet.
    """

    name = "progressive"

    def __init__(self, options: ProgressiveOptions) -> None:
        super().__init__(options)
        self.pace = options

    def attach(self, model: Any) -> nn.Module:
        attached = super().attach(model)
        levels = sorted({self.heights[parameter] for parameter in self._trained.values()})
        open_from_the_start = [height for height in levels if height <= self.pace.first_blocks] or levels[:1]
        self._first, self._waiting = open_from_the_start[-1], levels[len(open_from_the_start) :]
        self._thaw(self._first)
        return attached

    def before_step(self, ctx: Context) -> bool:
        """Thaw what is due.

        Raises:
            UserError: the stage is too short for ``thaw_every``.
        """
        every, count = self.pace.thaw_every, len(self._waiting)
        if every is not None and every * count >= ctx.steps:
            raise UserError(
                f"adaptation.thaw_every: {count} thaws, {every} steps apart, do not fit into {ctx.steps} steps",
                "Lower it, or write `thawed_by`, a share of the stage.",
            )
        due = [self._first]
        for number, height in enumerate(self._waiting, start=1):
            at = number * every if every else math.ceil(number / count * (self.pace.thawed_by or HALF) * ctx.steps)
            if ctx.step >= min(at, ctx.steps - 1):
                due.append(height)
        return self._thaw(due[-1])

    def _thaw(self, height: int) -> bool:
        """Train what stands at most so high above the output; whether that is new."""
        before = [parameter.requires_grad for parameter in self._trained.values()]
        for parameter in self._trained.values():
            parameter.requires_grad_(self.heights[parameter] <= height)
        return before != [parameter.requires_grad for parameter in self._trained.values()]
