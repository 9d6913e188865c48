"""How often a model prefers the chosen answer, and by how much."""

from __future__ import annotations

from torch import nn

from ftk.parts import Context, Evaluator, Metric, Task, predictions
from ftk_plugins.evaluators.preference_accuracy.options import PreferenceAccuracyOptions


class PreferenceAccuracy(Evaluator):
    """Compares the log-likelihoods of both answers, as the objective gives them; asks for no reference.

    So scores of different stages, and of the starting model, can be compared.
    """

    def __init__(self, options: PreferenceAccuracyOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``preference_accuracy``, 0 to 1, and ``preference_margin``, the mean difference in nats.

        Raises:
            UserError: there are no test rows.
        """
        values = predictions(task, model, ctx).values.double()
        margins = values[:, 0] - values[:, 1]
        return [
            Metric("preference_accuracy", float((margins > 0).double().mean()), higher_is_better=True),
            Metric("preference_margin", float(margins.mean()), higher_is_better=True),
        ]
