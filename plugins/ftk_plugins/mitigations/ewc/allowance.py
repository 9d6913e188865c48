"""The strength that nobody has to tune: a dual variable that holds the rise of earlier tasks' losses at a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ftk_plugins.mitigations.narrowing import leeway

PERIOD = 5
"""Steps from one estimate to the next."""

CALIBRATED = 20
"""Steps from one measurement of some rows to the next."""

AIM = 0.8
"""The share of the allowance that is aimed at in the end."""

RATE, DAMPING = 0.2, 0.4
"""How far the strength's logarithm goes in one period for each unit of excess, and for each by which it has grown."""

LEAST, MOST = -0.5, 3.0
"""Between what an excess counts: the strength is given up slower than it is taken back."""

FLOOR, CEILING = 1e-4, 10.0
"""Where the strength stays: 0 could not grow again by multiplication, and above a new task is not learned."""

FAINT = 0.02
"""Below this share of the allowance a measured rise says no more than that there is little."""

MOST_POINTS = 50
"""Points of the course that are kept; where it has twice as many, every other one goes."""


@dataclass
class Allowance:
    """Minimises the new loss under ``rise ≤ allowed`` by ascending on the multiplier of the constraint.

    The multiplier is the strength: its logarithm moves with the excess ``x = log(rise / aim)`` and with the excess's
    growth, a PI controller in logarithms, whose aim is a range that narrows to a value as the stage goes on. Between
    measurements the rise is that of the last one, in the proportion in which the quadratic form has grown since.

    Attributes:
        allowed: by how much the loss of any earlier task may rise in a stage, in nats for each target.
        strength: the multiplier, which goes on from stage to stage.
        stage: for which stage the following holds.
        before: each earlier task's mean loss on the rows of its estimate as the stage began, and on a few of them.
        few: the latter.
        after: the former at the stage's end.
        ratios: of each task the rise for each unit of the quadratic form, as last measured.
        form: the quadratic form as it was last.
        excess: x as it was last, None at first.
        course: step, estimated rise and strength, now and then.
        kept: the share of the drift that was kept at the end.
        kept_after: the losses with that, where it is not all.
    """

    allowed: float
    strength: float
    stage: int = 0
    before: dict[str, float] = field(default_factory=dict)
    few: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    form: float = 0.0
    excess: float | None = None
    course: list[list[float]] = field(default_factory=list)
    kept: float = 1.0
    kept_after: dict[str, float] = field(default_factory=dict)

    def begin(self, stage: int, before: dict[str, float], few: dict[str, float]) -> None:
        """A new stage, with these losses of its earlier tasks."""
        self.stage, self.before, self.few, self.after = stage, before, few, {}
        self.ratios, self.form, self.excess, self.course = {}, 0.0, None, []
        self.kept, self.kept_after = 1.0, {}

    def calibrate(self, form: float, few: dict[str, float]) -> None:
        """Take in what has been measured where the quadratic form has this value."""
        if form > 0:
            least = FAINT * self.allowed
            self.ratios = {name: max(loss - self.few[name], least) / form for name, loss in few.items()}

    def turn(self, form: float, step: int, steps: int) -> None:
        """Set the strength for the steps to come, after ``step`` of ``steps``."""
        self.form = form
        rise = max(self.rises().values(), default=0.0)
        if rise > 0:
            low = math.log(rise / (AIM * self.allowed))
            high = low - math.log(leeway(step / steps))
            excess = min(MOST, high) if high > 0 else max(LEAST, min(0.0, low))
            growth = 0.0 if self.excess is None else excess - self.excess
            self.strength *= math.exp(RATE * excess + DAMPING * growth)
            self.strength = min(CEILING, max(FLOOR, self.strength))
            self.excess = excess
        self.course.append([step, rise, self.strength])
        if len(self.course) > 2 * MOST_POINTS:
            del self.course[1::2]

    def rises(self) -> dict[str, float]:
        """The estimated rise of each task."""
        return {name: ratio * self.form for name, ratio in self.ratios.items()}

    def holds(self, losses: dict[str, float]) -> bool:
        """Whether no task's loss has risen by more than is allowed."""
        return all(loss - self.before[name] <= self.allowed for name, loss in losses.items())

    def finish(self, form: float, after: dict[str, float]) -> None:
        """The stage has ended, with these losses."""
        self.form, self.after = form, after

    def step_back(self, share: float, after: dict[str, float]) -> None:
        """It ended above the allowance, and this share of the drift is kept."""
        self.kept, self.kept_after = share, after

    def report(self) -> dict[str, Any]:
        """For ``report.json``; rises in nats for each target."""
        rises = {name: {"measured": loss - self.before[name]} for name, loss in self.after.items()}
        for name, rise in self.rises().items() if self.after else ():
            rises[name]["estimated"] = rise
        for name, loss in self.kept_after.items():
            rises[name]["kept"] = loss - self.before[name]
        course = [{"step": int(step), "rise": rise, "strength": now} for step, rise, now in self.course]
        return {
            "allowed_loss": self.allowed,
            "strength": self.strength,
            "rises": rises,
            "course": course,
            "kept_share": self.kept,
        }
