"""Which weights are trained, and how the training moves the model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ftk.parts.drift import Drift
from ftk.parts.gradients import Gradients
from ftk.parts.part import Part

if TYPE_CHECKING:
    from ftk.parts.context import Context


Rewrite = Callable[[str, Tensor, Tensor], Iterator[tuple[int, int, Tensor]]]
"""See :meth:`Adaptation.rewrite`."""


def rewrite_weight(name: str, weight: Tensor, start: Tensor, end: Tensor, drifts: Rewrite | None) -> None:
    """:meth:`Adaptation.rewrite` for one weight that is a parameter of its own: in place, under ``no_grad``.

    Args:
        name: of the weight.
        weight: what is written, and not read.
        start: its starting values.
        end: its trained values.
        drifts: what its drift becomes; None: ``weight`` becomes ``end``.
    """
    if drifts is None:
        weight.copy_(end)
        return
    rows, began = weight.view(weight.shape or (1,)), start.view(start.shape or (1,))
    for first, last, drift in drifts(name, began, end.view(began.shape)):
        rows[first:last] = drift.to(rows.device).add_(began[first:last].to(rows.device))


class Adaptation(Part):
    """Which weights are trained, and how the training moves the model.

    ``attach`` on the stage's starting model and then ``load_state_dict`` give the trained model back bit for bit.
    """

    @abstractmethod
    def attach(self, model: Any) -> nn.Module:
        """Make the model trainable in this way and return it; its function has not changed by this.

        What does not ``merge`` may change it, as vectors before the text do; within :meth:`reference` it has not.
        """

    @abstractmethod
    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups: ``params`` and ``lr``, and ``weight_decay`` 0 where none must act.

        All that is ever trained in the stage stands here from the start; what is frozen for now has no
        ``requires_grad``, and no step moves it.
        """

    def before_step(self, ctx: Context) -> bool:
        """Before each step: set which parameters require gradients in it; whether that has changed since the last.

        Which they are follows from ``ctx`` and the state alone, the same in every process, so that a stage that
        resumes trains what it would have trained.
        """
        return False

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        """Edit the step's gradients in place, before any mitigation does: what the method itself adds to the loss.

        Under ``no_grad``. They are those that :meth:`ftk.parts.Mitigation.edit_gradients` describes.
        """

    def after_step(self, ctx: Context) -> None:
        """After the optimizer's step; the gradients that it took are still there, clipped and equal on all processes.

        Under ``no_grad``. What is kept of them is part of the state. ``ctx.step`` is the number of the step just taken,
        from 0. In fp16 they are not all finite where the step was left out, because its scale was too large.
        """

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
        self.scale_each(lambda name: alpha)

    def scale_each(self, share: Callable[[str], float]) -> None:
        """As :meth:`scale`, by a share for each weight, which is asked by its name in the plain model.

        What one layer has beside its ``weight``, as a bias, goes by the share of that. Needs ``layer-scale``.
        """
        raise TypeError(f"{type(self).__name__} cannot scale its drift")

    def rewrite(self, drifts: Rewrite | None) -> None:
        """Set the drift of each weight to what ``drifts`` makes of it; None: back to exactly the trained weights.

        ``drifts(name, start, end)`` is given a weight's name, its starting values and those at the first call of this
        or of :meth:`scale`, to be read, at least one-dimensional and in the weight's own type. It yields
        ``(first row, row after the last, their new drift in float32)``, which cover all rows. Calls are absolute.
        Needs ``weight-set``.
        """
        raise TypeError(f"{type(self).__name__} cannot set single entries of a weight")

    @abstractmethod
    def export(self, directory: Path) -> str | None:
        """Write what is this method's own (an adapter), if anything, under ``directory``. Called before merge.

        Returns:
            A sentence for the model's card, where something could not be written.
        """

    @abstractmethod
    def merge(self) -> Any:
        """End the adaptation and return the plain model, as ``transformers`` knows it.

        With the capability ``merge`` it computes what was trained. Without, it is the stage's starting model, and what
        was trained is what :meth:`export` wrote beside it; no stage can follow.
        """
