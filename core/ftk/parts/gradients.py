"""The gradients of one optimizer step, as mitigations see and edit them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ftk.parts.drift import is_distributed


class Gradients(Mapping[str, Tensor]):
    """The ``.grad`` of every trainable parameter by name, unscaled, accumulated and rank-averaged.

    Of the stage's model, and where it trains several heads of what only the others have: ``ctx.gradients()``.

    Edit the tensors in place. A parameter that the loss did not reach has a gradient of zeros. The gradient of a
    sharded parameter is sharded as it is: a ``DTensor``, of which :func:`ftk.parts.own_rows` gives this process's part.

    Attributes:
        scale: what the losses of the step were multiplied by before they went back. What a hook of one's own has heard
            of them is to be divided by it, and, summed over the processes, by their number.
    """

    scale: float = 1.0

    def __init__(self, model: nn.Module, beside: Mapping[str, nn.Parameter] | None = None) -> None:
        named = {**dict(model.named_parameters()), **(beside or {})}
        self._parameters = {name: p for name, p in named.items() if p.requires_grad}
        self._by_source: dict[str, dict[str, Tensor]] = {}
        self._references: dict[str, dict[str, Tensor]] = {}
        self._reached: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        return parameter.grad

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The trainable parameters themselves, by the same names."""
        return self._parameters

    @property
    def by_source(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The gradient that each source's rows gave, by the source's name and the parameter's; read-only.

        They sum to the step's gradient before anybody edits it. A source is ``train``, of several tasks in a stage
        ``train/NAME``, or a mitigation's, ``replay/capitals``; with a slash and :meth:`ftk.parts.Objective.member`
        behind it where the objective tells rows apart. A step has those of which it holds rows. Needs the capability
        ``source-gradients``.

        Raises:
            TypeError: nobody asked for them.
        """
        if not self._by_source:
            raise TypeError('gradients by source are for a variant that declares needs=("source-gradients",)')
        return self._by_source

    @property
    def references(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The gradient on the rows that a mitigation's sources with ``reference_rows`` gave in this step; read-only.

        By the source's name and the parameter's: of the mean loss over the targets of these rows, with the dropout
        of training. They are no part of the step's gradient. In
        :meth:`ftk.parts.Mitigation.edit_gradients` a mitigation sees those of its own sources.
        """
        return self._references

    def seen_by(self, mitigation: str) -> Gradients:
        """The same gradients, with the references of this mitigation's sources alone. The core calls this."""
        seen, start = copy.copy(self), f"{mitigation}/"
        its = {name.removeprefix(start): g for name, g in self._references.items() if name.startswith(start)}
        seen._references = its
        return seen

    def keep(self, source: str, scale: float = 1.0) -> None:
        """What the gradients are now, divided by ``scale``, is this source's reference. The core calls this."""
        self._references[source] = {name: self[name] for name in self._parameters}
        if scale != 1:
            torch._foreach_div_(list(self._references[source].values()), scale)
        for parameter in self._parameters.values():
            parameter.grad = None

    def set_aside(self, source: str) -> None:
        """What the gradients are now came from this source; the next source begins with none. The core calls this."""
        self._reached |= {name for name, parameter in self._parameters.items() if parameter.grad is not None}
        self._by_source[source] = {name: self[name] for name in self._parameters}
        for parameter in self._parameters.values():
            parameter.grad = None

    def join(self, scale: float = 1.0) -> None:
        """Make the step's gradient of what was set aside, and divide the latter by ``scale``. The core calls this."""
        for name in self._reached:
            first, *others = (gradients[name] for gradients in self._by_source.values())
            total = first.clone()
            for gradient in others:
                total += gradient
            self._parameters[name].grad = total
        if scale != 1:
            torch._foreach_div_([g for gradients in self._by_source.values() for g in gradients.values()], scale)

    def restart(self) -> None:
        """Forget what was set aside: a new step begins. The core calls this."""
        self._by_source, self._references, self._reached = {}, {}, set()

    def norm(self) -> Tensor:
        """The joint L2 norm of all gradients, a scalar on their device."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters.values() if p.grad is not None])
        return norm.full_tensor() if is_distributed(norm) else norm

    def clip_(self, max_norm: float) -> Tensor:
        """Scale all gradients so that their joint L2 norm is at most ``max_norm``; return the norm before.

        ``max_norm`` 0 leaves the gradients as they are.
        """
        norm = self.norm()
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), max_norm, norm)
        return norm
