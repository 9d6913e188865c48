"""The drift of a weight that the model computes from other parameters, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ftk.parts.drift import CHUNK_ELEMENTS, Drift


class ComputedDrift(Drift):
    """The drift of any weight of which an adaptation can say how the model computes it now.

    Nothing is kept beside the parameters: rows are computed when they are read, and the chain rule is autograd's
    through the rows that are pulled. A sharded weight is not served.

    Args:
        weight: the base weight, as it stands in the live model.
        effective: called as ``effective(start, stop)``, returns those rows of the weight with which the model computes
            now, in the layout of ``weight``, with a graph that leads to ``parameters``. Compute in float32: what is
            read is the difference of two near values.
        parameters: the trainable parameters that ``effective`` depends on; others of them may share some.
        by_rows: whether some rows cost less than all. Where they do not, :meth:`chunks` gives all rows at once, so
            that whoever goes by it computes the weight once.
        start: the weight where the stage began, shaped as ``weight``; by default ``weight`` itself, which is right
            wherever an adaptation leaves the base weights alone and begins without displacing them.

    For example, the output of a linear layer multiplied by a vector that is learned::

        ComputedDrift(layer.weight, lambda i, j: vector[i:j, None] * layer.weight[i:j].float(), [vector])
    """

    def __init__(
        self,
        weight: Tensor,
        effective: Callable[[int, int], Tensor],
        parameters: Sequence[nn.Parameter],
        *,
        by_rows: bool = True,
        start: Tensor | None = None,
    ) -> None:
        self._weight = weight
        self._effective = effective
        self._parameters = tuple(parameters)
        self._by_rows = by_rows
        self._start = weight if start is None else start

    @property
    def weight(self) -> Tensor:
        return self._weight

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        with torch.autocast(self._weight.device.type, enabled=False):
            return self._effective(start, stop).float() - self._start[start:stop].float()

    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        with torch.enable_grad(), torch.autocast(self._weight.device.type, enabled=False):
            rows = self._effective(start, stop)
            pulls = torch.autograd.grad(rows, trained, gradient.to(rows), allow_unused=True)
        for parameter, pull in zip(trained, pulls, strict=True):
            if pull is not None:
                parameter.grad = pull.clone() if parameter.grad is None else parameter.grad.add_(pull)

    def chunks(self, elements: int = CHUNK_ELEMENTS) -> Iterator[tuple[int, int]]:
        if self._by_rows:
            yield from super().chunks(elements)
        else:
            yield 0, self.shape[0]
