"""How the tasks of a memory divide its share of the training mix, and its room."""

from __future__ import annotations

from collections.abc import Sequence

from ftk.parts import Course
from ftk_plugins.mitigations.share_options import ChangingShare


def divided(share: float | ChangingShare, weights: Sequence[float]) -> list[float | Course]:
    """A share among tasks in proportion to their weights."""
    whole = sum(weights)
    if isinstance(share, ChangingShare):
        course = Course(share.start, share.end, share.over)
        return [course * (weight / whole) for weight in weights]
    return [share * weight / whole for weight in weights]


def evenly(size: int, most: Sequence[int]) -> list[int]:
    """How many rows each task may keep of ``size``: as even as may be, none more than its ``most``."""
    given = [0] * len(most)
    for left, index in enumerate(sorted(range(len(most)), key=lambda index: (most[index], index))):
        given[index] = min(most[index], (size - sum(given)) // (len(most) - left))
    return given
