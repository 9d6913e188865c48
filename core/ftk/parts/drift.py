"""Drift: how far each base weight has moved from where the stage began, in effective weight space."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

CHUNK_ELEMENTS = 4_000_000
"""How many elements of a weight :meth:`Drift.chunks` lets a method hold at a time."""


def own_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows of a tensor that this process holds, and the number of the first of them: all, from 0, unless sharded.

    A sharded tensor (a ``DTensor``) is cut along its first dimension into even pieces, of which the last may be
    smaller or empty. What is returned is no copy: writing to it writes to the tensor.
    """
    if not is_distributed(tensor):
        return tensor, 0
    rows, mesh = tensor.shape[0], tensor.device_mesh
    with torch.no_grad():  # else it would be a view with a graph
        return tensor.to_local(), min(rows, -(-rows // mesh.size()) * mesh.get_local_rank())


def is_distributed(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a ``DTensor``; what makes such is not imported for it, which takes a third as long as torch."""
    made_by = sys.modules.get("torch.distributed.tensor")
    return made_by is not None and isinstance(tensor, made_by.DTensor)


@dataclass(frozen=True, slots=True)
class Product:
    """One term ``scale · left @ right`` of a drift of low rank, as it is now.

    Attributes:
        left: ``(rows, rank)``, a view of the live parameter.
        right: ``(rank, columns)``, likewise.
        scale: as above.
        left_grad: shaped as ``left``; add ``∂L/∂left`` to it. None where the factor is frozen.
        right_grad: likewise of ``right``.
    """

    left: Tensor
    right: Tensor
    scale: float
    left_grad: Tensor | None
    right_grad: Tensor | None


class Drift(ABC):
    """The displacement ``W_now − W_start`` of one base weight, readable in chunks of its first dimension.

    Rows are numbered as in the whole weight. Where weights are sharded a process reads and pulls its own rows only,
    those that :meth:`chunks` gives; every row is some process's, so that each pull is made once.

    This is what lets a weight-space method (EWC, L2-SP, drift plots) be written once and hold for every
    adaptation: the adaptation says how its parameters move the weight, the method says what the movement costs.
    """

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The base weight as it stands in the live model, by identity; read-only. Finds the modules that use it."""

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight, as the model stores it."""
        return self.weight.shape

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """The drift of ``weight[start:stop]``, in float32, shape ``(stop − start, *shape[1:])``; no graph.

        A tensor of its own, which the caller may overwrite.
        """

    @abstractmethod
    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        """Add the chain rule of ``gradient = ∂L/∂W[start:stop]`` to the ``.grad`` of the trainable parameters.

        Args:
            start: the first row of the chunk.
            stop: the row after the last.
            gradient: float32, shaped as :meth:`rows` returns it.
        """

    def products(self) -> Sequence[Product]:
        """The drift as a sum of products of small factors, for methods with a closed form in them; else nothing.

        Views of all rows of a 2-D weight, with the gradients as they are in this step: ask anew in each. Where the
        weight is sharded, what a process adds must be what its own rows cause.
        """
        return ()

    def chunks(self, elements: int = CHUNK_ELEMENTS) -> Iterator[tuple[int, int]]:
        """Ranges that cover this process's rows, each of about ``elements`` elements at most (one row at least).

        Where only some rows can move, as those of new tokens, the ranges may cover these alone.
        """
        own, first = own_rows(self.weight)
        rows = own.shape[0] if own.ndim else 1
        pieces = -(-own.numel() // elements)  # of even size
        step = max(1, -(-rows // max(1, pieces)))
        for start in range(first, first + rows, step):
            yield start, min(start + step, first + rows)
