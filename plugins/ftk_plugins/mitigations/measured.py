"""What pulls have in common whose Ω is measured on rows of earlier tasks, when a stage begins."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ftk.parts import Context, Task
from ftk_plugins.mitigations.ewc.fisher import Estimate, Fisher, estimate_fisher, rehearse_fisher
from ftk_plugins.mitigations.pulling import WeightedPull


class MeasuredPull(WeightedPull):
    """A pull that remembers a task by what :meth:`estimate` asks for.

    Args:
        name: the variant's, for messages.
        strength: as in :class:`Pull`.
        every: as in :class:`Pull`.
        gamma: as in :class:`WeightedPull`.
        normalise: whether each task's Ω is scaled to mean 1 over all weights.
        held: as in :class:`WeightedPull`, what its state is called and in which type it is.
    """

    def __init__(self, name: str, *, strength: float, every: int, gamma: float, normalise: bool, **held: Any) -> None:
        super().__init__(name, strength=strength, every=every, gamma=gamma, **held)
        self.normalise = normalise

    @abstractmethod
    def estimate(self, task: Task) -> Estimate:
        """How a task's Ω is measured."""

    def remember(self, task: Task, ctx: Context) -> None:
        """Measure Ω on ``task`` and take it into the sum.

        Raises:
            UserError: the task has no training rows.
            RunFailed: its gradients are not finite.
        """
        assert ctx.adaptation is not None
        # Where a stage begins nothing has moved, and each base layer does its own work.
        with ctx.adaptation.reference():
            found = estimate_fisher(task, ctx, self.weights(ctx), self.estimate(task))
        if found.trace == 0:
            told = f"{self.name}: the gradients of `{task.name}` are all zero, so nothing of it is guarded"
            ctx.events("warning", text=told)
        self._add(found, ctx)
        self.tasks[task.name] = {"trace": found.trace, "samples": found.samples}

    def rehearse(self, task: Task, ctx: Context) -> None:
        assert ctx.adaptation is not None
        how = self.estimate(task)
        with ctx.adaptation.reference():
            parts = rehearse_fisher(task, ctx, self.weights(ctx), how)
        self._add(Fisher(parts, 1.0, how.samples), ctx)

    def _add(self, new: Fisher, ctx: Context) -> None:
        count = sum(weight.numel() for weight in self.weights(ctx).values())
        self.accumulate(new.parts, count / new.trace if self.normalise and new.trace > 0 else 1.0)
