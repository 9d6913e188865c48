"""A linear probe: how much of a task the frozen body holds, whatever the task's own head makes of it."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from ftk.parts import Context, Evaluator, Metric, Resampling, Task, tested
from ftk_plugins.evaluators.probe.features import features_of
from ftk_plugins.evaluators.probe.options import ProbeOptions
from ftk_plugins.evaluators.probe.regression import fitted
from ftk_plugins.evaluators.shares import share


class Probe(Evaluator):
    """Fits a logistic regression to the features of the task's training rows, and measures it on its test rows."""

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``probe_accuracy``, 0 to 1, or ``probe_loss`` in nats, as ``measures`` asks for.

        Raises:
            UserError: there are no test rows, rows have not one class each, or the model has no body of its own.
        """
        options, test = self.options, tested(task)
        random = np.random.Generator(np.random.PCG64(options.seed))
        count = min(options.train_rows, len(task.train))
        rows = sorted(random.choice(len(task.train), size=count, replace=False).tolist())
        features, classes = features_of(task.train, rows, model, task, ctx, options.pooling)
        others, right = features_of(test, range(len(test)), model, task, ctx, options.pooling)
        probe = fitted(features, classes, int(max(classes.max(), right.max())) + 1, options.penalty)
        measures = {"accuracy": _accuracy, "loss": _loss}
        told = probe.log_probabilities(others)
        return [measures[name](told, right) for name in options.measures]


def _accuracy(told: Tensor, right: Tensor) -> Metric:
    return share("probe_accuracy", (told.argmax(1) == right).numpy())


def _loss(told: Tensor, right: Tensor) -> Metric:
    nats = -told.gather(1, right[:, None])[:, 0].numpy()
    resampling = Resampling(len(nats), lambda rows: float(nats[rows].mean()))
    return Metric("probe_loss", float(nats.mean()), False, resampling=resampling)
