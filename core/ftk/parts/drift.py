"""Drift: how far each base weight has moved from where the stage began, in effective weight space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ELEMENTS = 4_000_000
"""How many elements of a weight :meth:`Drift.chunks` lets a method hold at a time."""


class Drift(ABC):
    """The displacement ``W_now − W_start`` of one base weight, readable in chunks of its first dimension.

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

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Row ranges that cover the weight, each of at most :data:`CHUNK_ELEMENTS` elements (one row at least)."""
        rows = self.shape[0]
        row_elements = max(1, self.weight.numel() // max(1, rows))
        step = max(1, CHUNK_ELEMENTS // row_elements)
        for start in range(0, rows, step):
            yield start, min(start + step, rows)
