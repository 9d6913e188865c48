"""Accuracy: the share of rows whose class, or whose whole set of classes, is predicted."""

from __future__ import annotations

from torch import nn

from ftk.parts import Context, Evaluator, Metric, Task
from ftk_plugins.evaluators.accuracy.options import AccuracyOptions
from ftk_plugins.evaluators.outcomes import outcomes
from ftk_plugins.evaluators.shares import share


class Accuracy(Evaluator):
    """The share of test rows that are right in all their classes, as scikit-learn's ``accuracy_score``."""

    def __init__(self, options: AccuracyOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``accuracy``, 0 to 1; the report keeps the confusion matrix beside it."""
        found = outcomes(task, model, ctx, self.options.threshold)
        return [share("accuracy", found.hits(), found.confusion())]
