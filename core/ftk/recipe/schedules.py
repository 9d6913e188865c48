"""The courses of the learning rate that ``[training] schedule`` can name, each with its formula."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from ftk.plugin.options import Options
from ftk.recipe.choices import Named

FLOOR = "Share of the peak rate at which it ends."


class Schedule(Options):
    """A course of the learning rate after its warm-up."""

    @abstractmethod
    def share(self, step: int, steps: int, warmup: int) -> float:
        """The share of the peak rate, 0 to 1, at which a step is taken.

        Args:
            step: from 0; not below ``warmup``.
            steps: of the stage.
            warmup: the steps before the peak.
        """


class Linear(Schedule):
    """To zero in a straight line."""

    use: Literal["linear"] = Field(default="linear", description="The schedule's name.")

    def share(self, step: int, steps: int, warmup: int) -> float:
        return max(0.0, (steps - step) / max(1, steps - warmup))


class Cosine(Schedule):
    """Half a cosine (Loshchilov & Hutter 2017)."""

    use: Literal["cosine"] = Field(description="The schedule's name.")
    floor: float = Field(default=0.0, ge=0, le=1, description=FLOOR)

    def share(self, step: int, steps: int, warmup: int) -> float:
        return above(self.floor, half_cosine(passed(step, steps, warmup)))


class Constant(Schedule):
    """The peak rate to the end."""

    use: Literal["constant"] = Field(description="The schedule's name.")

    def share(self, step: int, steps: int, warmup: int) -> float:
        return 1.0


class Wsd(Schedule):
    """Warm-up, stable, decay (Hu et al. 2024); shapes of the decay by Hägele et al. 2024."""

    use: Literal["wsd"] = Field(description="The schedule's name.")
    decay: float = Field(default=0.2, gt=0, le=1, description="Share of the steps, the last ones, in which it falls.")
    shape: Literal["1-sqrt", "linear", "cosine"] = Field(default="1-sqrt", description="How it falls.")
    floor: float = Field(default=0.0, ge=0, le=1, description=FLOOR)

    def share(self, step: int, steps: int, warmup: int) -> float:
        last = min(round(self.decay * steps), steps - warmup)
        fallen = passed(step, steps, steps - last)
        if self.shape == "1-sqrt":
            return above(self.floor, 1 - math.sqrt(fallen))
        return above(self.floor, half_cosine(fallen) if self.shape == "cosine" else 1 - fallen)


class InverseSqrt(Schedule):
    """With one over the square root of the step (Vaswani et al. 2017)."""

    use: Literal["inverse_sqrt"] = Field(description="The schedule's name.")
    timescale: int | None = Field(
        default=None,
        gt=0,
        description="The rate is halved 3 timescales after the peak; the warm-up's steps, or 10,000 without.",
    )

    def share(self, step: int, steps: int, warmup: int) -> float:
        timescale = self.timescale or warmup or 10_000
        return 1 / math.sqrt((step - warmup + timescale) / timescale)


class Polynomial(Schedule):
    """A power of the share of the steps that are left."""

    use: Literal["polynomial"] = Field(description="The schedule's name.")
    power: float = Field(default=1.0, gt=0, description="1: a straight line; above 1: fast at first.")
    floor: float = Field(default=0.0, ge=0, le=1, description=FLOOR)

    def share(self, step: int, steps: int, warmup: int) -> float:
        return above(self.floor, (1 - passed(step, steps, warmup)) ** self.power)


AnySchedule = Annotated[
    Linear | Cosine | Constant | Wsd | InverseSqrt | Polynomial, Field(discriminator="use"), Named("linear")
]
"""What ``[training] schedule`` may say."""


def passed(step: int, steps: int, first: int) -> float:
    """How much of the way from step ``first`` to the last is done, 0 to 1."""
    return min(max((step - first) / max(1, steps - first), 0.0), 1.0)


def half_cosine(way: float) -> float:
    """From 1 to 0 as ``way`` goes from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * way))


def above(floor: float, share: float) -> float:
    """``share`` mapped from 0 … 1 to ``floor`` … 1."""
    return share * (1 - floor) + floor
