"""The options of the evaluator `accuracy`."""

from __future__ import annotations

from ftk_plugins.evaluators.outcome_options import OutcomeOptions


class AccuracyOptions(OutcomeOptions):
    """What a recipe may say about `accuracy`."""

    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)
