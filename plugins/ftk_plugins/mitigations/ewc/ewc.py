"""Elastic weight consolidation: a pull against the drift, stiff where earlier tasks depend on the weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from ftk.parts import CHUNK_ELEMENTS, Context, Importance, Task
from ftk_plugins.mitigations.pulling import Piece, WeightedPull

from .factors import Factors, pieces_of
from .fisher import Estimate, Fisher, estimate_fisher, rehearse_fisher
from .options import EwcOptions
from .sums import COLUMNS, ROWS


class Ewc(WeightedPull):
    """Adds the gradient of ``½ · strength · Σ F · drift²`` to each step (Kirkpatrick et al. 2017, eq. 3).

    ``F`` is one running sum over the tasks remembered (online EWC, Schwarz et al. 2018, section 4), and the
    anchor is the model at the stage's start. Its state is ``F`` by weight, of some kinds in two factors, and what was
    measured of each task.
    """

    def __init__(self, options: EwcOptions) -> None:
        super().__init__(
            "ewc",
            strength=options.strength,
            every=options.every,
            gamma=options.gamma,
            kept="fisher/",
            dtype=getattr(torch, options.dtype),
        )
        self.options = options
        self._factors: dict[str, Factors] = {}
        self._closed: list[Piece] = []
        self._how = Estimate(options.samples, options.fisher_batch_size, options.labels, options.fisher)

    def remember(self, task: Task, ctx: Context) -> None:
        """Estimate the Fisher information of ``task`` and take it into the sum.

        Raises:
            UserError: the task has no training rows.
            RunFailed: its gradients are not finite.
        """
        assert ctx.adaptation is not None
        # Where a stage begins nothing has moved, and each base layer does its own work.
        with ctx.adaptation.reference():
            estimate = estimate_fisher(task, ctx, self.weights(ctx), self._how)
        if estimate.trace == 0:
            ctx.events(
                "warning",
                text=f"ewc: the gradients of `{task.name}` are all zero, so nothing of it is guarded",
            )
        self._add(estimate, ctx)
        self.tasks[task.name] = {"trace": estimate.trace, "samples": estimate.samples}

    def rehearse(self, task: Task, ctx: Context) -> None:
        assert ctx.adaptation is not None
        with ctx.adaptation.reference():
            parts = rehearse_fisher(task, ctx, self.weights(ctx), self._how)
        self._add(Fisher(parts, 1.0, self.options.samples), ctx)

    def begin(self, ctx: Context) -> None:
        self._factors = {}
        for name, drift in self.drifts(ctx).items():
            if name + ROWS in self.importances:
                for key in (name + ROWS, name + COLUMNS):
                    self.importances[key] = self.importances[key].to(drift.weight.device)
                self._factors[name] = Factors(drift, self.importances[name + ROWS], self.importances[name + COLUMNS])
        self._closed = pieces_of(list(self._factors.values()), CHUNK_ELEMENTS)
        super().begin(ctx)

    def pieces(self, ctx: Context) -> list[Piece]:
        return [*self._closed, *super().pieces(ctx)]

    def count(self) -> int:
        return super().count() + sum(each.drift.weight.numel() for each in self._factors.values())

    def weigh(self, ctx: Context) -> Mapping[str, Importance]:
        found = dict(super().weigh(ctx))
        for name, each in self._factors.items():
            cost = sum(float(piece.cost()) for piece in pieces_of([each], CHUNK_ELEMENTS))
            found[name] = Importance(float(each.total()), cost)
        return found

    def report(self) -> dict[str, Any]:
        forms = Counter("factored" if each.rows.ndim == 1 else "kfac" for each in self._factors.values())
        return {**super().report(), "forms": {"diagonal": len(self.guarded), **forms}}

    def remembered_shape(self, name: str) -> tuple[int, ...] | None:
        if name + ROWS in self.importances:
            return len(self.importances[name + ROWS]), len(self.importances[name + COLUMNS])
        return super().remembered_shape(name)

    def _add(self, new: Fisher, ctx: Context) -> None:
        count = sum(weight.numel() for weight in self.weights(ctx).values())
        self.accumulate(new.parts, count / new.trace if self.options.normalise and new.trace > 0 else 1.0)
