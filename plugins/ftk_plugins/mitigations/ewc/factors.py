"""Fisher information held in two factors of a matrix: pulls without the matrix where the drift has factors too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import Drift, own_rows
from ftk_plugins.mitigations.pieces import LowRank, Piece, batches

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
    """What to pull at: in products of small factors what has a drift of low rank, the rest by rows."""
    low = [each for each in factors if each.drift.products()]
    together = batches([each for each in low if each.rows.ndim == 1], lambda each: each.drift)
    alone = [[each] for each in low if each.rows.ndim == 2]  # too large to be copied
    rest = [piece for each in factors if not each.drift.products() for piece in each.pieces(limit)]
    return [*(Products(group) for group in (*together, *alone)), *rest]


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


class Products(LowRank):
    """Weights of one shape with F in factors and drifts of low rank; with Kronecker factors one."""

    def __init__(self, members: Sequence[Factors]) -> None:
        super().__init__([each.drift for each in members])
        first = members[0]
        self._matrices = first.rows.ndim == 2
        if self._matrices:
            self._u, self._v = first.rows[self.own], first.columns
            self._share = _divided(first.rows.new_ones(1), first.total())
        else:
            self._u = self.stack([_divided(each.rows, each.total())[self.own] for each in members])[..., None]
            self._v = self.stack([each.columns for each in members])[..., None, :]

    def times(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        if self._matrices:
            return self._u.float() @ (left * self._share), right @ self._v.float()
        return self._u * left[..., self.own, :], right * self._v


def _divided(rows: Tensor, total: Tensor) -> Tensor:
    """``rows / total``, and zeros where there is nothing."""
    return rows.float() / total.clamp(min=torch.finfo(torch.float32).tiny)
