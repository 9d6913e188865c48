"""Weight interpolation at the end of a stage, by a fixed share or one chosen on validation data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ftk import UserError
from ftk.parts import Context, MergeMethod, Metric, Mitigation, State, Task
from ftk_plugins.merges.linear.linear import Linear
from ftk_plugins.merges.linear.options import LinearOptions
from ftk_plugins.mitigations.ewc.fisher import Estimate, estimate_fisher, rehearse_fisher
from ftk_plugins.mitigations.interpolation.averaging import PREFIX as MEAN
from ftk_plugins.mitigations.interpolation.averaging import Averaging
from ftk_plugins.mitigations.interpolation.moving import Importances, Mover
from ftk_plugins.mitigations.interpolation.options import InterpolationOptions
from ftk_plugins.mitigations.retention import kept_scores, learned_score, refuse_unvalidated, retained, worst_of

KNOWN = "known/"
"""Before the names of weights in the state: the Fisher information of earlier tasks."""


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
    """When the stage is trained, merges its two ends: ``W₀ + α(W − W₀)``, or by another method of merging.

    ``finish`` is a pure function of the trained weights, the state and the data: after a restart it chooses the same.
    """

    of_weights = {f"{KNOWN}*": "zeros"}

    def __init__(self, options: InterpolationOptions) -> None:
        self.options = options
        self._method: MergeMethod = Linear(LinearOptions())
        self._averaging: Averaging | None = None
        if options.trained_weights != "last":
            begin = 0.5 if options.begin is None else options.begin
            decay = 0.999 if options.decay is None else options.decay
            self._averaging = Averaging(options.trained_weights, options.every or 1, begin, decay)
        self._known: dict[str, Tensor] = {}
        self._report: dict[str, Any] = {}

    def take(self, methods: Mapping[str, MergeMethod]) -> None:
        """Take the method.

        Raises:
            UserError: `samples` is given, and the method needs no importances.
        """
        self._method = methods["method"]
        if self.options.samples is not None and not self._method.importances:
            raise UserError(
                "interpolation: `samples` says nothing to a method that needs no importances",
                'leave it out, or write method = "fisher"',
            )

    def remember(self, task: Task, ctx: Context) -> None:
        """Estimate how much each weight matters to the task, where the method asks."""
        if self._method.importances:
            self._add(estimate_fisher(task, ctx, self._weights(ctx), self._how()).parts)

    def rehearse(self, task: Task, ctx: Context) -> None:
        if self._method.importances:
            self._add(rehearse_fisher(task, ctx, self._weights(ctx), self._how()))

    def begin(self, ctx: Context) -> None:
        """Look ahead to :meth:`finish`, so that what it lacks is missed before the training and not after it.

        Raises:
            UserError: ``alpha`` is to be chosen, and a task has no validation data or no evaluator.
        """
        if self.options.alpha == "validation":
            refuse_unvalidated("interpolation", "choose `alpha` on", ctx)
        if self._averaging is not None:
            self._averaging.begin(ctx)

    def after_step(self, ctx: Context) -> None:
        if self._averaging is not None:
            self._averaging.take(ctx)

    def go_back(self, state: State) -> None:
        """The average is that of the steps up to the weights that the stage leaves."""
        if self._averaging is not None:
            self._averaging.load_state_dict(state)

    def finish(self, ctx: Context) -> None:
        """Put the model where the options say.

        Raises:
            UserError: ``alpha`` is to be chosen, and a task lacks the metric.
        """
        if ctx.adaptation is None:
            raise TypeError("interpolation acts in a stage, and outside of a stage there is no adaptation")
        averaging = self._averaging if self._averaging is not None and self._averaging.taken else None
        told = {} if self.options.method == "linear" else {"method": self.options.merges()["method"]["use"]}
        if self._averaging is not None:
            told |= {"trained_weights": self.options.trained_weights, "taken": self._averaging.taken}
        mover = Mover(self._method, ctx, averaging, self._importances(ctx))
        if self.options.alpha == "validation":
            try:
                curve = self._measure_curve(mover, ctx)
            except BaseException:
                mover.back()
                raise
            chosen = self._choose(curve, ctx)
            mover.move(chosen.alpha)
            curves = {"metric": chosen.learned.name, **chosen.to_json(), "curve": [it.to_json() for it in curve]}
            self._report = {**told, **curves}
        else:
            mover.move(self.options.alpha)
            self._report = {**told, "alpha": self.options.alpha}
        if self._averaging is not None:
            self._averaging.clear()

    def report(self) -> dict[str, Any]:
        """The share; where it was chosen, also the metric, its values there, and the whole curve."""
        return self._report

    def state_dict(self) -> State:
        """What the method has measured of earlier tasks, and the average so far."""
        average = {} if self._averaging is None else self._averaging.state_dict()
        return {**average, **{KNOWN + name: value for name, value in self._known.items()}}

    def load_state_dict(self, state: State) -> None:
        average = {key: value for key, value in state.items() if not key.startswith(KNOWN)}
        strange = [key for key in average if key not in ("taken", "stage") and not key.startswith(MEAN)]
        if strange:
            raise ValueError(f"interpolation: a state does not have {', '.join(strange)}")
        if self._averaging is not None and average:  # else a stage before this one averaged
            self._averaging.load_state_dict(average)
        self._known = {key.removeprefix(KNOWN): value for key, value in state.items() if key.startswith(KNOWN)}

    def _how(self) -> Estimate:
        return Estimate(samples=self.options.samples or 500, method="interpolation")

    def _weights(self, ctx: Context) -> dict[str, Tensor]:
        """Those weights that move, by common name, and that the model of ``ctx`` has."""
        assert ctx.adaptation is not None
        there = {id(parameter) for parameter in ctx.model.parameters()}
        drifts = ctx.adaptation.drift().items()
        return {ctx.common_name(name): drift.weight for name, drift in drifts if id(drift.weight) in there}

    def _add(self, new: Mapping[str, Tensor]) -> None:
        for name, value in new.items():
            known = self._known.get(name)
            self._known[name] = value if known is None else known.to(value.device).add_(value)

    def _importances(self, ctx: Context) -> Importances | None:
        """What earlier tasks and what the stage teaches depend on."""
        if not self._method.importances:
            return None
        taught: dict[str, Tensor] = {}
        for task in ctx.taught:
            through = ctx.through(task.objective)
            for name, value in estimate_fisher(task, through, self._weights(through), self._how()).parts.items():
                taught[name] = value if name not in taught else taught[name].add_(value)
        return self._known, taught

    def _measure_curve(self, mover: Mover, ctx: Context) -> list[Point]:
        alphas = self.options.alphas
        start: dict[str, Metric] = {}
        curve: list[Point] = []
        for alpha in alphas if alphas[0] == 0 else (0.0, *alphas):
            ctx.check_interrupt()
            ctx.events("phase", text=f"interpolation: measuring share {alpha:g}", done=len(curve), total=len(alphas))
            mover.move(alpha)
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
