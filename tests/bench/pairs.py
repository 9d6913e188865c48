"""Ratios of two times, measured in alternating pairs so that whatever slows the machine slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class Goal:
    """What a ratio should be."""

    sign: Literal["≥", "≤"]
    value: float

    def met_by(self, ratio: float) -> bool:
        """Whether ``ratio`` is at least, or at most, the value."""
        return ratio >= self.value if self.sign == "≥" else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


@dataclass(frozen=True)
class Measured:
    """What a benchmark found.

    Attributes:
        ratios: one for each pair.
        device: on which.
        facts: further numbers by name, with their units in the name.
    """

    ratios: list[float]
    device: torch.device
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)


Piece = Callable[[], object]
"""One contender's share of one pair."""


def alternate(first: Piece, second: Piece, pairs: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Time the two in turn, ``pairs`` times, after one run of each that does not count.

    Returns:
        The seconds of each run of the first, and of the second.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs + 1):
        for contender, seconds in zip((first, second), times, strict=True):
            taken = timed(contender, device)
            if number:
                seconds.append(taken)
    return times


def timed(piece: Piece, device: torch.device) -> float:
    """Seconds that ``piece`` takes until the device has done all of it; garbage is collected before, not within."""
    gc.collect()
    synchronize(device)
    started = time.perf_counter()
    piece()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def divided(numerators: list[float], denominators: list[float]) -> list[float]:
    """The ratio of each pair."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]
