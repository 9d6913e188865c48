"""Elastic weight consolidation: a pull against the drift, stiff where earlier tasks depend on the weight."""

from __future__ import annotations

from ftk.parts import Context, Task
from ftk_plugins.mitigations.pulling import WeightedPull

from .fisher import Fisher, estimate_fisher, rehearse_fisher
from .options import EwcOptions


class Ewc(WeightedPull):
    """Adds the gradient of ``½ · strength · Σ F · drift²`` to each step (Kirkpatrick et al. 2017, eq. 3).

    ``F`` is one running sum over the tasks remembered (online EWC, Schwarz et al. 2018, section 4), and the
    anchor is the model at the stage's start. Its state is ``F`` by weight and what was measured of each task.
    """

    def __init__(self, options: EwcOptions) -> None:
        super().__init__("ewc", strength=options.strength, every=options.every, gamma=options.gamma, kept="fisher/")
        self.options = options

    def remember(self, task: Task, ctx: Context) -> None:
        """Estimate the Fisher information of ``task`` and take it into the sum.

        Raises:
            UserError: the task has no training rows.
            RunFailed: its gradients are not finite.
        """
        assert ctx.adaptation is not None
        # Where a stage begins nothing has moved, and each base layer does its own work.
        with ctx.adaptation.reference():
            estimate = estimate_fisher(
                task,
                ctx,
                self.weights(ctx),
                samples=self.options.samples,
                draw=self.options.labels == "sample",
                batch_size=self.options.fisher_batch_size or ctx.micro_batch_size,
            )
        if estimate.trace == 0:
            ctx.events(
                "warning",
                text=f"ewc: the gradients of `{task.name}` are all zero, so nothing of it is guarded",
            )
        self._add(estimate)
        self.tasks[task.name] = {"trace": estimate.trace, "samples": estimate.samples}

    def rehearse(self, task: Task, ctx: Context) -> None:
        batch_size = self.options.fisher_batch_size or ctx.micro_batch_size
        assert ctx.adaptation is not None
        weights = self.weights(ctx)
        with ctx.adaptation.reference():
            diagonal = rehearse_fisher(task, ctx, weights, samples=self.options.samples, batch_size=batch_size)
        self._add(Fisher(diagonal, 1.0, self.options.samples))

    def _add(self, new: Fisher) -> None:
        count = sum(diagonal.numel() for diagonal in new.diagonal.values())
        self.accumulate(new.diagonal, count / new.trace if self.options.normalise and new.trace > 0 else 1.0)
