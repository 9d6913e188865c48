"""What the options that choose several things share: each is named once."""

from __future__ import annotations

from typing import TypeVar

Chosen = TypeVar("Chosen", bound=tuple[object, ...])


def each_once(chosen: Chosen) -> Chosen:
    """What was chosen; raises ``ValueError`` where it names one thing twice."""
    if len(set(chosen)) < len(chosen):
        raise ValueError("names one of them twice")
    return chosen
