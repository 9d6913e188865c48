"""The gradients of one optimizer step, as mitigations see and edit them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Gradients(Mapping[str, Tensor]):
    """The ``.grad`` of every trainable parameter by name, unscaled, accumulated and rank-averaged.

    Edit the tensors in place. A parameter that the loss did not reach has a gradient of zeros. The gradient of a
    sharded parameter is sharded as it is: a ``DTensor``, of which :func:`ftk.parts.own_rows` gives this process's part.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

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

    def norm(self) -> Tensor:
        """The joint L2 norm of all gradients, a scalar on their device."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters.values() if p.grad is not None])
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def clip_(self, max_norm: float) -> Tensor:
        """Scale all gradients so that their joint L2 norm is at most ``max_norm``; return the norm before.

        ``max_norm`` 0 leaves the gradients as they are.
        """
        norm = self.norm()
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), max_norm, norm)
        return norm
