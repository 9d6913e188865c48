"""Which weights are trained, and how the training moves the model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from ftk.parts.drift import Drift
from ftk.parts.part import Part


class Adaptation(Part):
    """Which weights are trained, and how the training moves the model.

    ``attach`` on the stage's starting model and then ``load_state_dict`` give the trained model back bit for bit.
    """

    @abstractmethod
    def attach(self, model: Any) -> nn.Module:
        """Make the model trainable in this way and return it; its function has not changed by this."""

    @abstractmethod
    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups: ``params`` and ``lr``, and ``weight_decay`` 0 where none must act."""

    def drift(self) -> Mapping[str, Drift]:
        """The drift of each base weight by its name in the plain model. Needs the capability ``weight-drift``."""
        return {}

    def settle(self) -> None:
        """Take in what :meth:`Drift.pull_back` gave since the last call, from every process.

        Called in all processes after each mitigation's ``edit_gradients`` where weights are sharded: a pull on one
        process's rows may move parameters that every process holds whole.
        """

    @abstractmethod
    def reference(self) -> AbstractContextManager[None]:
        """Within it, the attached model computes what the stage's starting model computed."""

    def scale(self, alpha: float) -> None:
        """Set the effective weights to ``W₀ + alpha·(W − W₀)``; ``W`` are the weights at the first call.

        Calls are absolute: 0 is exactly the start, 1 exactly the trained model. Needs ``weight-scale``.
        """
        raise TypeError(f"{type(self).__name__} cannot scale its drift")

    @abstractmethod
    def export(self, directory: Path) -> None:
        """Write what is this method's own (an adapter), if anything, under ``directory``. Called before merge."""

    @abstractmethod
    def merge(self) -> Any:
        """End the adaptation: fold it into the model and return the plain model, as ``transformers`` knows it."""
