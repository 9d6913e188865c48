"""The options of the evaluator `preference_accuracy`."""

from __future__ import annotations

from ftk import Options


class PreferenceAccuracyOptions(Options):
    """It has none: what is compared is the objective's business."""

    def metrics(self) -> tuple[str, ...]:
        return ("preference_accuracy", "preference_margin")
