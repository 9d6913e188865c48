"""A floor for what is retained: measured while the stage trains, held by the strengths of other mitigations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ftk.parts import Context, Knob, Metric, Mitigation, State
from ftk_plugins.mitigations.budget.options import BudgetOptions
from ftk_plugins.mitigations.narrowing import leeway
from ftk_plugins.mitigations.retention import kept_scores, learned_score, refuse_unvalidated, retained, worst_of

LEAST_SLACK = 0.01
"""The loss of retention that counts as one, where the floor itself allows less."""
FURTHEST = 3.0
"""How many times what may be lost counts at most in one measurement."""


class Budget(Mitigation):
    """Turns every knob by one common factor, so that no earlier task's retention stays below the floor.

    With ``l`` the most that an earlier task has lost, a measurement multiplies the strengths by
    ``factor ** (l / may − 1)``, where ``may`` is what may be lost: integral control of their logarithm. It is a range:
    the strengths fall below ``1 − floor``, and grow above a multiple of it that narrows to 1. If the floor does not
    hold after the last step, the largest share of the stage's drift at which it does is found by halving.

    Its state is the factor, the scores of the stage's start, and the course so far; what strengths a stage begins with
    are the recipe's.
    """

    def __init__(self, options: BudgetOptions) -> None:
        self.options = options
        self._stage = 0
        self._metric: str | None = None
        self._log_factor = 0.0
        self._start: dict[str, float | None] = {}
        self._course: list[dict[str, Any]] = []
        self._knobs: dict[str, tuple[Knob, float]] = {}
        self._end: dict[str, Any] = {}

    def begin(self, ctx: Context) -> None:
        """Look ahead to what is measured, and set the strengths to where they stood.

        Raises:
            UserError: a task cannot be measured on validation data.
        """
        refuse_unvalidated("budget", "hold its floor on", ctx)
        if self._stage != ctx.stage:  # what it says is of the stage before
            self.load_state_dict({"stage": ctx.stage})
        chosen = self.options.mitigations or tuple(ctx.knobs)
        self._knobs = {name: (knob, knob.value) for name, knob in ctx.knobs.items() if name in chosen}
        for name, (_, asked) in self._knobs.items():
            if asked == 0:
                ctx.events("warning", text=f"budget: the strength of `{name}` is 0, which no factor changes")
        self._turn()

    def after_step(self, ctx: Context) -> None:
        step = ctx.step + 1
        every = self.options.every or max(1, ctx.steps // 10)
        if step % every == 0 and step < ctx.steps:
            point = self._measured(ctx)
            self._course.append({"step": step, "strengths": self._strengths(), **point})
            self._log_factor += math.log(self.options.factor) * self._missed(point, step / ctx.steps)
            most = math.log(self.options.limit)
            self._log_factor = min(max(self._log_factor, -most), most)
            self._turn()

    def finish(self, ctx: Context) -> None:
        """Go back by as little as the floor asks for.

        Raises:
            UserError: a task lacks the metric.
        """
        adaptation = ctx.adaptation
        assert adaptation is not None
        best, point = 1.0, self._measured(ctx)
        whole = point
        if self._worst(point) < self.options.retention_floor and self.options.trials:
            low, high = 0.0, 1.0
            try:
                for trial in range(self.options.trials):
                    ctx.check_interrupt()
                    ctx.events("phase", text="budget: stepping back", done=trial, total=self.options.trials)
                    middle = (low + high) / 2
                    adaptation.scale(middle)
                    found = self._measured(ctx)
                    if self._worst(found) >= self.options.retention_floor:
                        low, point = middle, found
                    else:
                        high = middle
            except BaseException:
                adaptation.scale(1.0)
                raise
            best = low
            adaptation.scale(best)
            if best == 0.0:
                point = self._measured(ctx)
                ctx.events("warning", text="budget: only the stage's start was found to keep what must be kept")
        self._end = {"share": best, "whole": whole, "kept": point}

    def report(self) -> dict[str, Any]:
        """The floor, the strengths in the end, the course, and what stepping back gave and cost."""
        return {
            "retention_floor": self.options.retention_floor,
            "metric": self._metric,
            "strengths": self._strengths(),
            "start": self._start,
            "course": self._course,
            **self._end,
        }

    def state_dict(self) -> State:
        return {
            "stage": self._stage,
            "metric": self._metric,
            "log_factor": self._log_factor,
            "start": dict(self._start),
            "course": list(self._course),
        }

    def load_state_dict(self, state: State) -> None:
        if strange := state.keys() - self.state_dict().keys():
            raise ValueError(f"budget: a state does not have {', '.join(sorted(strange))}")
        self._stage = state.get("stage", 0)
        self._metric = state.get("metric")
        self._log_factor = state.get("log_factor", 0.0)
        self._start = dict(state.get("start", {}))
        self._course = list(state.get("course", []))

    def _turn(self) -> None:
        """Set the knobs by the common factor, each as far as it goes."""
        factor = math.exp(self._log_factor)
        for knob, asked in self._knobs.values():
            knob.value = min(max(asked * factor, knob.minimum), knob.maximum)

    def _strengths(self) -> dict[str, float]:
        return {name: knob.value for name, (knob, _) in self._knobs.items()}

    def _missed(self, point: Mapping[str, Any], done: float) -> float:
        """By how many times what may be lost too much is: −1 where nothing is, 0 in the range."""
        lost, least = 1 - self._worst(point), max(1 - self.options.retention_floor, LEAST_SLACK)
        most = least * leeway(done)
        return max(lost / least - 1, -1.0) if lost < least else min(max(lost / most - 1, 0.0), FURTHEST)

    def _worst(self, point: Mapping[str, Any]) -> float:
        return worst_of([_number(value) for value in point["retention"].values()])

    def _measured(self, ctx: Context) -> dict[str, Any]:
        """Every task on its validation rows, beside the start: JSON values, None for what is not finite."""
        # A signal is heeded after the step, where a checkpoint is; and all processes measure together.
        ctx = replace(ctx, check_interrupt=lambda: None)
        assert ctx.adaptation is not None
        if not self._start:
            with ctx.adaptation.reference():
                self._start = {name: _finite(score.value) for name, score in self._kept(ctx).items()}
        learned = learned_score("budget", self.options.metric, ctx)
        self._metric = learned.name
        retention = {name: retained(score, _number(self._start[name])) for name, score in self._kept(ctx).items()}
        return {
            "learned": _finite(learned.value),
            "retention": {name: _finite(value) for name, value in retention.items()},
        }

    def _kept(self, ctx: Context) -> dict[str, Metric]:
        return kept_scores("budget", self.options.metric, ctx)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
