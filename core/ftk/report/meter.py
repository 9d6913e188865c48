"""What the observers are told of training's steps: loss, speed and the gradient's size since the last report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from ftk.parts import Context
from ftk.report.blame import Trace


class Course(Protocol):
    """How far a stage has come."""

    tokens: int
    seconds: float


class Meter:
    """Sums losses and tokens between reports, without waiting for the device in between."""

    def __init__(self, device: torch.device, progress: Course) -> None:
        self.progress = progress
        self._started = time.perf_counter()
        self._total = torch.zeros((), device=device)
        self._count, self._tokens = 0.0, 0
        self.traces: list[Trace] = []

    def begin_step(self, ctx: Context) -> Trace:
        """Where a step writes down what may be asked for if something is not finite."""
        self.traces.append(Trace(ctx.step + 1))
        return self.traces[-1]

    def add(self, total: torch.Tensor, count: float, tokens: int) -> None:
        self._total += total
        self._count += count
        self._tokens += tokens

    def restart(self) -> None:
        """Leave the time since the last report out: it was not training's."""
        self._started = time.perf_counter()

    def report(self, ctx: Context, learning_rate: float, norm: torch.Tensor, more: Mapping[str, Any]) -> None:
        """Tell the observers of the steps since the last report, and begin anew."""
        total, count, tokens = float(self._total), self._count, self._tokens
        if ctx.world_size > 1:
            sums = torch.tensor([total, count, tokens], dtype=torch.float64, device=ctx.device)
            torch.distributed.all_reduce(sums)
            total, count, tokens = sums.tolist()
        now = time.perf_counter()
        seconds = now - self._started
        loss, size = total / max(count, 1), float(norm)
        self.progress.tokens += int(tokens)
        self.progress.seconds += seconds
        ctx.events(
            "step",
            stage=ctx.stage,
            step=ctx.step + 1,
            steps=ctx.steps,
            loss=loss,
            learning_rate=learning_rate,
            gradient_norm=size,
            tokens_per_second=tokens / max(seconds, 1e-9),
            **more,
        )
        self._started = now
        self._total.zero_()
        self._count, self._tokens = 0.0, 0
        self.traces = self.traces[-1:]  # the newest is what the next step began with
