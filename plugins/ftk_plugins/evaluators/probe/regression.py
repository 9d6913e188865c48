"""Multinomial logistic regression with a penalty on the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

STEPS = 1000


@dataclass(frozen=True, slots=True)
class Regression:
    """A fitted one.

    Attributes:
        mean: of the features that it was fitted to, ``(dim,) float64``.
        spread: their standard deviation, 1 where there is none.
        weight: ``(dim, classes) float64``.
        bias: ``(classes,) float64``.
    """

    mean: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def log_probabilities(self, features: Tensor) -> Tensor:
        """Of each class, ``(rows, classes) float64``."""
        scores = (features.double() - self.mean) / self.spread @ self.weight + self.bias
        return scores.log_softmax(1)


def fitted(features: Tensor, classes: Tensor, count: int, penalty: float) -> Regression:
    """The minimum of ``Σ cross entropy + ½·penalty·‖W‖²`` over standardised features; the bias goes free.

    It is scikit-learn's ``LogisticRegression(C=1/penalty)`` behind a ``StandardScaler``.

    Args:
        features: ``(rows, dim)`` floating point.
        classes: ``(rows,) int64``.
        count: how many classes there are, also those that no row has.
        penalty: above 0.
    """
    values = features.double()
    mean, spread = values.mean(0), values.std(0, correction=0)
    spread = torch.where(spread > 1e-12, spread, torch.ones_like(spread))
    values = (values - mean) / spread
    weight = torch.zeros(values.shape[1], count, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-8, tolerance_change=1e-14, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        solver.zero_grad()
        total = cross_entropy(values @ weight + bias, classes, reduction="sum") + penalty / 2 * weight.square().sum()
        mean_loss = total / len(values)
        torch.autograd.backward(mean_loss)
        return mean_loss

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return Regression(mean, spread, weight.detach(), bias.detach())
