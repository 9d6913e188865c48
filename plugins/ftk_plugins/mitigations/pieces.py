"""A quadratic pull, a piece of the weights at a time: by rows, or in products of small factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ftk.parts import CHUNK_ELEMENTS, Drift, Product, own_rows

T = TypeVar("T")

CPU_CHUNK_ELEMENTS = 1 << 18
"""Elements of a weight that each CPU thread pulls at a time: 1 MiB, which stays in its cache."""


def piece_elements(device: torch.device) -> int:
    """How many elements of a weight a step works on at a time."""
    return CPU_CHUNK_ELEMENTS * torch.get_num_threads() if device.type == "cpu" else CHUNK_ELEMENTS


class Piece(ABC):
    """A part of what is guarded, which one step pulls at as a whole."""

    @abstractmethod
    def pull(self, strength: float) -> None:
        """Add the gradient of ``strength · cost`` to the ``.grad`` of what is trained; under ``no_grad``."""

    @abstractmethod
    def cost(self) -> Tensor:
        """``½ · Σ Ω · drift²`` of this part: a scalar, of this process's rows where weights are sharded."""


@dataclass(frozen=True, slots=True)
class Rows(Piece):
    """Some rows of a weight, and their Ω; None: ones."""

    drift: Drift
    importance: Tensor | None
    start: int
    stop: int

    def pull(self, strength: float) -> None:
        pull = self.drift.rows(self.start, self.stop)
        if self.importance is None:
            pull.mul_(strength)
        else:  # strength · Ω · drift in one pass and in place
            torch.addcmul(pull.new_zeros(()), pull, self.importance, value=strength, out=pull)
        self.drift.pull_back(self.start, self.stop, pull)

    def cost(self) -> Tensor:
        squares = self.drift.rows(self.start, self.stop).square_()
        return (squares if self.importance is None else squares.mul_(self.importance)).sum() / 2


def by_rows(drift: Drift, importance: Tensor | None, limit: int) -> list[Rows]:
    """The rows of one weight that this process holds, in ranges of at most ``limit`` elements."""
    if importance is None:
        return [Rows(drift, None, start, stop) for start, stop in drift.chunks(limit)]
    own, first = own_rows(importance)
    own = own if own.ndim else own.view(1)
    return [Rows(drift, own[start - first : stop - first], start, stop) for start, stop in drift.chunks(limit)]


def batches(members: Iterable[T], drift: Callable[[T], Drift]) -> Iterator[list[T]]:
    """Those with products of one shape together: as many as a processor's cache holds, an accelerator takes all."""
    groups: dict[tuple[object, ...], list[T]] = {}
    for each in members:
        products = drift(each).products()
        shapes = tuple((product.left.shape, product.right.shape, product.scale) for product in products)
        groups.setdefault((shapes, products[0].left.device), []).append(each)
    for group in groups.values():
        products = drift(group[0]).products()
        numbers = sum(product.left.numel() + product.right.numel() for product in products)
        most = max(1, CPU_CHUNK_ELEMENTS // numbers) if products[0].left.device.type == "cpu" else len(group)
        for start in range(0, len(group), most):
            yield group[start : start + most]


class LowRank(Piece):
    """Weights of one shape with drifts ``D = L R`` of low rank: one, or a batch.

    The cost is ``½ · Σ (Lᵀ U L) ⊙ (R V Rᵀ)`` for an importance ``U ⊗ V``, here of ones on the diagonals; its
    gradients are ``U L (R V Rᵀ)`` and ``(Lᵀ U L) R V``. Of a sharded weight each process takes the rows that it holds.

    Attributes:
        own: these rows.
    """

    def __init__(self, drifts: Sequence[Drift]) -> None:
        self._drifts = drifts
        chunks = list(drifts[0].chunks())
        self.own = slice(chunks[0][0], chunks[-1][1]) if chunks else slice(0, 0)

    def times(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """``U L``, of the rows that this process holds, and ``R V``, shaped as :meth:`stack` makes them, float32."""
        return left[..., self.own, :], right

    def stack(self, tensors: list[Tensor]) -> Tensor:
        """With the weights first, unless there is but one."""
        return tensors[0] if len(tensors) == 1 else torch.stack(tensors)

    def pull(self, strength: float) -> None:
        products, left, right = self._factors()
        with _float32(left):
            lefts, rights = self.times(left, right)
            of_rights, of_lefts = rights @ right.mT, left[..., self.own, :].mT @ lefts
            start = 0
            for number, first in enumerate(products[0]):
                own = slice(start, start + first.left.shape[1])
                grads = [(each[number].left_grad, each[number].right_grad) for each in products]
                to_left = [grad[self.own] for grad, _ in grads if grad is not None]
                to_right = [grad for _, grad in grads if grad is not None]
                self._add(to_left, lefts, of_rights[..., own], strength * first.scale)
                self._add(to_right, of_lefts[..., own, :], rights, strength)
                start = own.stop

    def cost(self) -> Tensor:
        _, left, right = self._factors()
        with _float32(left):
            lefts, rights = self.times(left, right)
            return ((left[..., self.own, :].mT @ lefts) * (rights @ right.mT)).sum() / 2

    def _factors(self) -> tuple[list[Sequence[Product]], Tensor, Tensor]:
        """The terms of each drift, and ``L (weights, m, rank)`` and ``R (weights, rank, n)`` over all terms."""
        products = [drift.products() for drift in self._drifts]
        lefts, rights = [], []
        for number, first in enumerate(products[0]):
            lefts.append(self.stack([each[number].left for each in products]).float() * first.scale)
            rights.append(self.stack([each[number].right for each in products]).float())
        if len(lefts) == 1:
            return products, lefts[0], rights[0]
        return products, torch.cat(lefts, -1), torch.cat(rights, -2)

    def _add(self, grads: list[Tensor], one: Tensor, other: Tensor, alpha: float) -> None:
        """``grads += alpha · one @ other``, each its own; nothing where there are none."""
        if len(grads) == 1 and grads[0].dtype == one.dtype:
            grads[0].addmm_(one, other, alpha=alpha)
        elif grads:
            pulls = (one @ other).to(grads[0].dtype)
            torch._foreach_add_(grads, [pulls] if len(self._drifts) == 1 else list(pulls.unbind(0)), alpha=alpha)


def _float32(tensor: Tensor) -> AbstractContextManager[Any]:
    """Products as the tensors are, whatever the caller's precision; free where that is no other."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
