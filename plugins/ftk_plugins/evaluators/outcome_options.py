"""The options that evaluators of classes share."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class OutcomeOptions(Options):
    """When a class counts as predicted."""

    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Where a row may have several classes, the probability above which one counts; unset: one half.",
    )
