"""How the tasks of a memory divide its share of the training mix."""

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
