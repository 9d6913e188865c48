"""How often a model prefers the chosen answer, and by how much."""

from __future__ import annotations

from torch import nn

from ftk.parts import Context, Evaluator, Metric, Resampling, Task, predictions
from ftk_plugins.evaluators.preference_accuracy.options import PreferenceAccuracyOptions
from ftk_plugins.evaluators.shares import share


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
        values = predictions(task, model, ctx).values.double().numpy()
        margins = values[:, 0] - values[:, 1]
        mean = Resampling(len(margins), lambda rows: float(margins[rows].mean()))
        return [
            share("preference_accuracy", margins > 0),
            Metric("preference_margin", float(margins.mean()), True, resampling=mean),
        ]
