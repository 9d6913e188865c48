"""Weight interpolation at the end of a stage, by a fixed share or one chosen on validation data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftk.parts import Adaptation, Context, Metric, Mitigation
from ftk_plugins.mitigations.interpolation.options import InterpolationOptions
from ftk_plugins.mitigations.retention import kept_scores, learned_score, refuse_unvalidated, retained, worst_of


@dataclass(frozen=True, slots=True)
class Point:
    """What one share gives.

    Attributes:
        alpha: the share of the drift that is kept.
        learned: the new task's metric.
        kept: each earlier task's metric.
        retention: each earlier task's :func:`retained`, against its metric at share 0.
    """

    alpha: float
    learned: Metric
    kept: Mapping[str, Metric]
    retention: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The lowest retention of all earlier tasks; 1 where there are none, and below all others for NaN."""
        return worst_of(list(self.retention.values()))

    @property
    def gain(self) -> float:
        """The new task's value, turned so that higher is better; below all others for NaN."""
        value = self.learned.value if self.learned.higher_is_better else -self.learned.value
        return -math.inf if math.isnan(value) else value

    def to_json(self) -> dict[str, Any]:
        """The point as JSON values; None for what is not finite."""
        return {
            "alpha": self.alpha,
            "learned": _finite(self.learned.value),
            "kept": {name: _finite(metric.value) for name, metric in self.kept.items()},
            "retention": {name: _finite(value) for name, value in self.retention.items()},
        }


class Interpolation(Mitigation):
    """Sets the effective weights to ``W₀ + α(W − W₀)`` when the stage is trained.

    ``finish`` is a pure function of the trained weights and the data: after a restart it chooses the same.
    """

    def __init__(self, options: InterpolationOptions) -> None:
        self.options = options
        self._report: dict[str, Any] = {}

    def begin(self, ctx: Context) -> None:
        """Look ahead to :meth:`finish`, so that what it lacks is missed before the training and not after it.

        Raises:
            UserError: ``alpha`` is to be chosen, and a task has no validation data or no evaluator.
        """
        if self.options.alpha == "validation":
            refuse_unvalidated("interpolation", "choose `alpha` on", ctx)

    def finish(self, ctx: Context) -> None:
        """Scale the drift.

        Raises:
            UserError: ``alpha`` is to be chosen, and a task lacks the metric.
        """
        adaptation = ctx.adaptation
        if adaptation is None:
            raise TypeError("interpolation acts in a stage, and outside of a stage there is no adaptation")
        if self.options.alpha != "validation":
            adaptation.scale(self.options.alpha)
            self._report = {"alpha": self.options.alpha}
            return
        try:
            curve = self._measure_curve(adaptation, ctx)
        except BaseException:
            adaptation.scale(1.0)
            raise
        chosen = self._choose(curve, ctx)
        adaptation.scale(chosen.alpha)
        self._report = {
            "metric": chosen.learned.name,
            **chosen.to_json(),
            "curve": [point.to_json() for point in curve],
        }

    def report(self) -> dict[str, Any]:
        """The share; where it was chosen, also the metric, its values there, and the whole curve."""
        return self._report

    def _measure_curve(self, adaptation: Adaptation, ctx: Context) -> list[Point]:
        alphas = self.options.alphas
        start: dict[str, Metric] = {}
        curve: list[Point] = []
        for alpha in alphas if alphas[0] == 0 else (0.0, *alphas):
            ctx.check_interrupt()
            ctx.events("phase", text=f"interpolation: measuring share {alpha:g}", done=len(curve), total=len(alphas))
            adaptation.scale(alpha)
            kept = kept_scores("interpolation", self.options.metric, ctx)
            start = start or kept
            if alpha in alphas:
                retention = {name: retained(metric, start[name].value) for name, metric in kept.items()}
                curve.append(Point(alpha, learned_score("interpolation", self.options.metric, ctx), kept, retention))
        return curve

    def _choose(self, curve: list[Point], ctx: Context) -> Point:
        """The best on the new task of those above the floor, else the best keeper; ties: the smaller."""
        allowed = [point for point in curve if point.worst >= self.options.retention_floor]
        if allowed:
            return max(allowed, key=lambda point: (point.gain, -point.alpha))
        best = max(curve, key=lambda point: (point.worst, -point.alpha))
        ctx.events(
            "warning",
            text=f"interpolation: no share keeps {self.options.retention_floor:g} of every earlier task; "
            f"{best.alpha:g} keeps most",
        )
        return best


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
