"""Fisher information held in two factors of a matrix: pulls without the matrix where the drift has factors too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import Drift, Product, own_rows
from ftk_plugins.mitigations.pulling import CPU_CHUNK_ELEMENTS, Piece

from .sums import COLUMNS, ROWS


@dataclass(frozen=True)
class Factors:
    """``F = rows ⊗ columns / total`` of one weight, which acts on its drift ``D`` as ``rows · D · columns / total``.

    Attributes:
        drift: of the weight, ``(m, n)``; of more dimensions, all but the first are the columns.
        rows: ``(m,)`` or ``(m, m)`` symmetric.
        columns: ``(n,)`` or ``(n, n)``.
    """

    drift: Drift
    rows: Tensor
    columns: Tensor

    def total(self) -> Tensor:
        """The sum of the diagonal of F, a scalar."""
        return self._of_rows().float().sum()

    def own_total(self) -> Tensor:
        """What the rows that this process holds have of it."""
        own, first = own_rows(self.drift.weight)
        return self._of_rows()[first : first + len(own)].float().sum()

    def times(self, moved: Tensor) -> Tensor:
        """F times a displacement, of the rows that this process holds; Kronecker factors want those of all."""
        flat, first = moved.flatten(1), own_rows(self.drift.weight)[1]
        own = slice(first, first + len(flat))
        if self.rows.ndim == 2:
            across = flat @ self.columns.float()
            if isinstance(self.drift.weight, DTensor):
                across, part = across.new_zeros(self.drift.shape), across
                across[own] = part
                torch.distributed.all_reduce(across)
            found = _divided(self.rows[own], self.total()) @ across
        else:
            u = _divided(self.rows, self.total())[own]
            found = flat * u[:, None] * self.columns
        return found.view_as(moved)

    def _of_rows(self) -> Tensor:
        return self.rows if self.rows.ndim == 1 else self.rows.diagonal()

    def pieces(self, limit: int) -> list[Piece]:
        """What to pull at, where the drift has no products."""
        if self.rows.ndim == 2:
            return [Whole(self)]
        u = _divided(self.rows, self.total())
        return [OuterRows(self.drift, u[i:j], self.columns, i, j) for i, j in self.drift.chunks(limit)]


def factors_of(drifts: Mapping[str, Drift], parts: dict[str, Tensor]) -> dict[str, Factors]:
    """Those of the weights that ``parts`` holds in factors; these go to where the weights are."""
    found = {}
    for name, drift in drifts.items():
        if name + ROWS in parts:
            for key in (name + ROWS, name + COLUMNS):
                parts[key] = parts[key].to(drift.weight.device)
            found[name] = Factors(drift, parts[name + ROWS], parts[name + COLUMNS])
    return found


def pieces_of(factors: Sequence[Factors], limit: int) -> list[Piece]:
    """What to pull at: together what has drifts of low rank and one shape, the rest by rows."""
    groups: dict[tuple[object, ...], list[Factors]] = {}
    pieces: list[Piece] = []
    for each in factors:
        products = each.drift.products()
        if not products:
            pieces += each.pieces(limit)
            continue
        shapes = tuple((product.left.shape, product.right.shape, product.scale) for product in products)
        alone = len(groups) if each.rows.ndim == 2 else None
        groups.setdefault((shapes, each.rows.device, alone), []).append(each)
    return [*(LowRank(part) for group in groups.values() for part in _parts(group)), *pieces]


@dataclass(frozen=True, slots=True)
class OuterRows(Piece):
    """Some rows of a weight with a diagonal of rank 1."""

    drift: Drift
    u: Tensor
    v: Tensor
    start: int
    stop: int

    def pull(self, strength: float) -> None:
        pull = self.drift.rows(self.start, self.stop)
        pull.flatten(1).mul_(self.u[:, None] * strength).mul_(self.v)
        self.drift.pull_back(self.start, self.stop, pull)

    def cost(self) -> Tensor:
        squares = self.drift.rows(self.start, self.stop).flatten(1).square_()
        return (self.u @ squares @ self.v) / 2


class Whole(Piece):
    """A weight with Kronecker factors whose drift is known by rows: all of it is there at once."""

    def __init__(self, factors: Factors) -> None:
        self._factors = factors

    def pull(self, strength: float) -> None:
        drift = self._factors.drift
        pulled, first = self._factors.times(self._drift()).mul_(strength), own_rows(drift.weight)[1]
        for start, stop in drift.chunks():
            drift.pull_back(start, stop, pulled[start - first : stop - first])

    def cost(self) -> Tensor:
        moved = self._drift()
        return (moved * self._factors.times(moved)).sum() / 2

    def _drift(self) -> Tensor:
        drift = self._factors.drift
        pieces = [drift.rows(start, stop) for start, stop in drift.chunks()]
        return torch.cat(pieces) if pieces else own_rows(drift.weight)[0].float()  # no process needs to hold any


class LowRank(Piece):
    """Weights of one shape with drifts ``D = L R`` of low rank, in products of the small factors: one, or a batch.

    The cost is ``½ · Σ (Lᵀ U L) ⊙ (R V Rᵀ)``, with U and V the factors of F; its gradients are ``U L (R V Rᵀ)`` and
    ``(Lᵀ U L) R V``. Of a sharded weight each process takes the rows that it holds.
    """

    def __init__(self, members: Sequence[Factors]) -> None:
        self._members = members
        chunks = list(members[0].drift.chunks())
        self._own = slice(chunks[0][0], chunks[-1][1]) if chunks else slice(0, 0)
        first = members[0]
        if first.rows.ndim == 2:  # alone, and too large to be copied
            self._u, self._v = first.rows[self._own], first.columns
            self._share = _divided(first.rows.new_ones(1), first.total())
            return
        self._u = self._stack([_divided(each.rows, each.total())[self._own] for each in members])[..., None]
        self._v = self._stack([each.columns for each in members])[..., None, :]

    def pull(self, strength: float) -> None:
        products, left, right = self._drifts()
        with _float32(left):
            lefts, rights = self._times(left, right)
            of_rights, of_lefts = rights @ right.mT, left[..., self._own, :].mT @ lefts
            start = 0
            for number, first in enumerate(products[0]):
                own = slice(start, start + first.left.shape[1])
                grads = [(each[number].left_grad, each[number].right_grad) for each in products]
                to_left = [grad[self._own] for grad, _ in grads if grad is not None]
                to_right = [grad for _, grad in grads if grad is not None]
                self._add(to_left, lefts, of_rights[..., own], strength * first.scale)
                self._add(to_right, of_lefts[..., own, :], rights, strength)
                start = own.stop

    def cost(self) -> Tensor:
        _, left, right = self._drifts()
        with _float32(left):
            lefts, rights = self._times(left, right)
            return ((left[..., self._own, :].mT @ lefts) * (rights @ right.mT)).sum() / 2

    def _stack(self, tensors: list[Tensor]) -> Tensor:
        """With the weights first, unless there is but one."""
        return tensors[0] if len(tensors) == 1 else torch.stack(tensors)

    def _drifts(self) -> tuple[list[Sequence[Product]], Tensor, Tensor]:
        """The terms of each drift, and ``L (weights, m, rank)`` and ``R (weights, rank, n)`` over all terms."""
        products = [each.drift.products() for each in self._members]
        lefts, rights = [], []
        for number, first in enumerate(products[0]):
            lefts.append(self._stack([each[number].left for each in products]).float() * first.scale)
            rights.append(self._stack([each[number].right for each in products]).float())
        if len(lefts) == 1:
            return products, lefts[0], rights[0]
        return products, torch.cat(lefts, -1), torch.cat(rights, -2)

    def _times(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """``U L``, of the rows that this process holds, and ``R V``."""
        if self._members[0].rows.ndim == 1:
            return self._u * left[..., self._own, :], right * self._v
        return self._u.float() @ (left * self._share), right @ self._v.float()

    def _add(self, grads: list[Tensor], one: Tensor, other: Tensor, alpha: float) -> None:
        """``grads += alpha · one @ other``, each its own; nothing where there are none."""
        if len(grads) == 1 and grads[0].dtype == one.dtype:
            grads[0].addmm_(one, other, alpha=alpha)
        elif grads:
            pulls = (one @ other).to(grads[0].dtype)
            torch._foreach_add_(grads, [pulls] if len(self._members) == 1 else list(pulls.unbind(0)), alpha=alpha)


def _float32(tensor: Tensor) -> AbstractContextManager[Any]:
    """Products as the tensors are, whatever the caller's precision; free where that is no other."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _parts(group: list[Factors]) -> Iterator[list[Factors]]:
    """Of one shape as many at a time as a processor's cache holds the products of; an accelerator takes all at once."""
    first = group[0]
    numbers = sum(product.left.numel() + product.right.numel() for product in first.drift.products())
    most = CPU_CHUNK_ELEMENTS // numbers or 1 if first.rows.device.type == "cpu" else len(group)
    for start in range(0, len(group), most):
        yield group[start : start + most]


def _divided(rows: Tensor, total: Tensor) -> Tensor:
    """``rows / total``, and zeros where there is nothing."""
    return rows.float() / total.clamp(min=torch.finfo(torch.float32).tiny)
