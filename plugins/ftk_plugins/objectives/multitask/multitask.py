"""The objective `multitask`: weights of several tasks' losses, fixed or learned from the losses' own size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ftk.parts import JointObjective, State
from ftk_plugins.objectives.multitask.options import MultitaskOptions


class Multitask(JointObjective):
    """Weighs the losses of tasks.

    With ``uncertainty`` the loss of a task with the log-variance ``s`` is ``exp(-s) · L + s / 2`` (Kendall, Gal and
    Cipolla 2018, eq. 10 with ``s = log σ²``), and Adam moves every ``s`` after each step along the gradient of the
    step's loss, ``n/N · (1/2 − exp(-s) · L)``. A task without rows in a step has no gradient in it.
    """

    def __init__(self, options: MultitaskOptions) -> None:
        self.options = options
        self.log_variances = torch.zeros(len(options.tasks), dtype=torch.float64, requires_grad=True)
        self._adam = torch.optim.Adam([self.log_variances], lr=options.weight_learning_rate)

    @property
    def names(self) -> list[str]:
        """The tasks, in the order of the recipe."""
        return list(self.options.tasks)

    def weights(self) -> Mapping[str, float]:
        if self.options.weighting == "fixed":
            return {name: member.weight or 1.0 for name, member in self.options.tasks.items()}
        return {name: math.exp(-s) for name, s in zip(self.names, self.log_variances.tolist(), strict=True)}

    def learn(self, losses: Mapping[str, float], shares: Mapping[str, float]) -> None:
        if self.options.weighting == "fixed" or not losses:
            return
        found = zip(self.names, self.log_variances.tolist(), strict=True)
        gradient = [shares[name] * (0.5 - math.exp(-s) * losses[name]) if name in losses else 0.0 for name, s in found]
        self.log_variances.grad = torch.tensor(gradient, dtype=torch.float64)
        self._adam.step()

    def report(self) -> dict[str, Any]:
        if self.options.weighting == "fixed":
            return {}
        return {"log_variances": dict(zip(self.names, self.log_variances.tolist(), strict=True))}

    def state_dict(self) -> State:
        if self.options.weighting == "fixed":
            return {}
        moments = self._adam.state.get(self.log_variances, {})
        return {
            "log_variances": self.log_variances.detach(),
            **{f"adam/{key}": value for key, value in moments.items()},
        }

    def load_state_dict(self, state: State) -> None:
        strange = [key for key in state if key != "log_variances" and not key.startswith("adam/")]
        if strange or (state and self.options.weighting == "fixed"):
            raise ValueError(f"multitask: a state does not have {', '.join(strange or state)}")
        if not state:
            return
        with torch.no_grad():
            self.log_variances.copy_(state["log_variances"])
        for key, value in state.items():
            if key.startswith("adam/"):
                self._adam.state[self.log_variances][key.removeprefix("adam/")] = value.clone()
