"""The average of a stage's weights over its steps, kept as drift beside the training."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ftk.parts import Context, State, own_rows

PREFIX = "mean/"


class Averaging:
    """The mean of the drift over some steps, or its exponential moving average.

    The moving average begins at the start (a drift of 0) and keeps ``min(decay, (1 + n) / (10 + n))`` of itself when
    the n-th is taken in, from 0, so that the start does not weigh on a short stage.

    Args:
        kind: which of the two.
        every: steps from one that is taken in to the next; the last step of the stage always is.
        begin: the share of the stage after which the mean begins.
        decay: what the moving average keeps.
    """

    def __init__(self, kind: Literal["average", "ema"], every: int, begin: float, decay: float) -> None:
        self._kind, self._every, self._begin, self._decay = kind, every, begin, decay
        self.taken = 0
        self._stage = 0
        self._mean: dict[str, Tensor] = {}

    def begin(self, ctx: Context) -> None:
        """Start afresh, unless the stage goes on."""
        if self._stage != ctx.stage:
            self.clear()
            self._stage = ctx.stage

    @torch.no_grad()
    def take(self, ctx: Context) -> None:
        """Take the weights in as they are after step ``ctx.step``, from 0, if this is one of the steps."""
        done = ctx.step + 1
        if (ctx.steps - done) % self._every or (self._kind == "average" and done <= self._begin * ctx.steps):
            return
        assert ctx.adaptation is not None
        share = 1 / (self.taken + 1)
        if self._kind == "ema":
            share = 1 - min(self._decay, (1 + self.taken) / (10 + self.taken))
        for name, drift in ctx.adaptation.drift().items():
            mean = self._mean.get(name)
            if mean is None:
                mean = torch.zeros_like(drift.weight.view(drift.shape), dtype=torch.float32)
            self._mean[name] = mean.to(drift.weight.device)
            own, first = own_rows(self._mean[name])
            for start, stop in drift.chunks():
                own[start - first : stop - first].lerp_(drift.rows(start, stop), share)
        self.taken += 1

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """The averaged drift of some of the rows that this process holds, counted from the first of them; a copy."""
        return own_rows(self._mean[name])[0][start:stop].clone()

    def clear(self) -> None:
        """Forget the average."""
        self.taken, self._mean = 0, {}

    def state_dict(self) -> State:
        """Tensors by the weights' names, and how many steps they are of."""
        return {"taken": self.taken, "stage": self._stage, **{PREFIX + name: mean for name, mean in self._mean.items()}}

    def load_state_dict(self, state: State) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.taken, self._stage = int(state["taken"]), int(state["stage"])
        self._mean = {name.removeprefix(PREFIX): mean for name, mean in state.items() if name.startswith(PREFIX)}
