"""How far a weight is from any point: what a pull to another place than the stage's start reads as its drift."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ftk.parts import CHUNK_ELEMENTS, Drift, own_rows


class Displaced(Drift):
    """The weight with which the model computes now minus ``point``; gradients go the way of its drift.

    Args:
        drift: of the weight, from the stage's start.
        moves: whether the base weight itself is trained, so that it holds its drift.
        point: shaped and sharded as the weight; None: zero.
    """

    def __init__(self, drift: Drift, moves: bool, point: Tensor | None) -> None:
        self._drift, self._moves, self._point = drift, moves, point

    @property
    def weight(self) -> Tensor:
        return self._drift.weight

    @property
    def shape(self) -> torch.Size:
        return self._drift.shape

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        found = _rows(self.weight, start, stop).clone()
        if self._point is not None:  # before the drift is added, which is small beside either
            found -= _rows(self._point, start, stop)
        return found if self._moves else found.add_(self._drift.rows(start, stop))

    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        self._drift.pull_back(start, stop, gradient)

    def chunks(self, elements: int = CHUNK_ELEMENTS) -> Iterator[tuple[int, int]]:
        return self._drift.chunks(elements)


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Rows of what this process holds, numbered as in the whole, in float32."""
    own, first = own_rows(tensor.detach())
    return (own if own.ndim else own.view(1))[start - first : stop - first].float()
