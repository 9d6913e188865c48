"""What is kept of the gradients that rows give one weight: a number for each, margins, or Kronecker factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from ftk.parts import own_rows

from .margins import add_margins
from .sites import Outer, Part
from .squares import Measure, add_squares

Kind = Literal["diagonal", "factored", "kfac"]
"""How the Fisher information of a matrix is held."""

ROWS, COLUMNS = "/rows", "/columns"
"""What the names of the two factors of a weight end with."""

LARGEST_FACTORS = 8
"""How many times as many numbers as the weight two Kronecker factors may have; a vocabulary's would be far larger."""


class Sums(ABC):
    """Sums over rows of what their own gradients of one weight give, float32, changed in place."""

    @abstractmethod
    def add(self, parts: Sequence[Part]) -> None:
        """Take in a batch of rows, from every call of every layer that uses the weight.

        Raises:
            TypeError: the weight is used in ways that do not go together.
        """

    @abstractmethod
    def add_gradient(self, gradient: Tensor, sign: float = 1.0) -> None:
        """Take in one row, or take it out, by its gradient of the whole weight; sharded where the weight is."""

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """All that is summed over rows, to be changed in place."""

    @abstractmethod
    def mean(self, rows: int) -> dict[str, Tensor]:
        """The mean over ``rows`` rows, by what the weight's name is followed by; the sums are used up."""


class Diagonal(Sums):
    """The square, or the size, of each number of the gradient: shaped, and sharded, as the weight."""

    def __init__(self, weight: Tensor, of: Measure = "square") -> None:
        self.total = torch.zeros_like(weight.detach(), dtype=torch.float32)
        self.of: Measure = of

    def add(self, parts: Sequence[Part]) -> None:
        add_squares(self.total, parts, self.of)

    def add_gradient(self, gradient: Tensor, sign: float = 1.0) -> None:
        own, total = own_rows(gradient)[0], own_rows(self.total)[0]
        total.addcmul_(own, own, value=sign) if self.of == "square" else total.add_(own.abs(), alpha=sign)

    def tensors(self) -> list[Tensor]:
        return [self.total]

    def mean(self, rows: int) -> dict[str, Tensor]:
        own_rows(self.total)[0].div_(rows)
        return {"": self.total}


class Margins(Sums):
    """The sums of the squares over each row ``u`` and each column ``v`` of a matrix: ``m + n`` numbers.

    ``u vᵀ / Σ u`` is the matrix of rank 1 with these sums, and of all of rank 1 the nearest to the squares in
    generalised Kullback-Leibler divergence (Shazeer & Stern 2018, section 3). Every process holds all of both.
    """

    def __init__(self, weight: Tensor) -> None:
        device = own_rows(weight.detach())[0].device
        self.rows = torch.zeros(weight.shape[0], device=device)
        self.columns = torch.zeros(weight.shape[1:].numel(), device=device)

    def add(self, parts: Sequence[Part]) -> None:
        add_margins(self.rows, self.columns, parts)

    def add_gradient(self, gradient: Tensor, sign: float = 1.0) -> None:
        own, first = own_rows(gradient)
        squares = own.float().flatten(1).square()
        self.rows[first : first + len(own)].add_(squares.sum(1), alpha=sign)
        self.columns.add_(squares.sum(0), alpha=sign)

    def tensors(self) -> list[Tensor]:
        return [self.rows, self.columns]

    def mean(self, rows: int) -> dict[str, Tensor]:
        return {ROWS: self.rows.div_(rows).clamp_(min=0), COLUMNS: self.columns.div_(rows).clamp_(min=0)}


class Kronecker(Sums):
    """The second moments of what a linear layer is given and of the gradients of what it gives (Martens & Grosse 2015).

    Positions of a row count as independent of each other (Eschenhagen et al. 2023, the setting "expand"), and only
    those that the loss depends on. With ``A = 1/P Σ x xᵀ`` over all P positions and ``G = 1/N Σ g gᵀ`` over N rows the
    Fisher information is ``G ⊗ A``; what is kept are its partial traces ``G·tr A`` and ``A·tr G``, the matrices that
    correspond to the margins above: their sums over tasks have the trace of the sum.
    """

    def __init__(self, weight: Tensor, transposed: bool) -> None:
        first, second = weight.shape
        self.rows = torch.zeros(first, first, device=weight.device)
        self.columns = torch.zeros(second, second, device=weight.device)
        self.positions = torch.zeros(1, device=weight.device)
        self.transposed = transposed
        """Whether the weight is stored as ``(in, out)``, so that the rows are what the layer is given."""

    def add(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if not isinstance(part, Outer):
                raise TypeError("a linear layer's weight is used by a layer of another kind")
            left, right = part.left.flatten(0, 1), part.right.flatten(0, 1)
            counted = (right if self.transposed else left).any(1)
            left, right = left[counted].to(self.rows.device), right[counted].to(self.rows.device)
            self.rows.addmm_(left.mT, left)
            self.columns.addmm_(right.mT, right)
            self.positions += len(left)

    def add_gradient(self, gradient: Tensor, sign: float = 1.0) -> None:
        """Nothing: a gradient does not tell what the layer was given."""

    def tensors(self) -> list[Tensor]:
        return [self.rows, self.columns, self.positions]

    def mean(self, rows: int) -> dict[str, Tensor]:
        given, gradients = (self.rows, self.columns) if self.transposed else (self.columns, self.rows)
        given.div_(self.positions.clamp(min=1))
        gradients.div_(rows)
        of_rows, of_columns = self.rows.trace(), self.columns.trace()
        return {ROWS: self.rows.mul_(of_columns), COLUMNS: self.columns.mul_(of_rows)}


def sums_of(model: nn.Module, weights: Mapping[str, Tensor], kind: Kind, of: Measure = "square") -> dict[str, Sums]:
    """What to sum for each weight; a weight for which ``kind`` has no form gets the diagonal."""
    linear = _linear(model, weights) if kind == "kfac" else {}
    sums: dict[str, Sums] = {}
    for name, weight in weights.items():
        if kind == "factored" and weight.ndim >= 2:
            sums[name] = Margins(weight)
        elif name in linear:
            sums[name] = Kronecker(weight, linear[name])
        else:
            sums[name] = Diagonal(weight, of)
    return sums


def checked(sums: Mapping[str, Sums], weights: Mapping[str, Tensor]) -> dict[str, Sums]:
    """The same, or where these cannot be had from a gradient others, in which hooks and autograd can be compared."""
    return {name: Margins(weights[name]) if isinstance(each, Kronecker) else each for name, each in sums.items()}


def trace(parts: Mapping[str, Tensor]) -> float:
    """The sum of the diagonal of the Fisher information, of all weights and over the rows of all processes."""
    whole, cut = 0.0, torch.zeros((), dtype=torch.float64)
    for name, part in parts.items():
        if name.endswith(COLUMNS):
            continue
        own = own_rows(part)[0]
        total = (own.diagonal() if name.endswith(ROWS) and own.ndim == 2 else own).sum(dtype=torch.float64)
        if isinstance(part, DTensor):
            cut = cut.to(total.device) + total
        else:
            whole += float(total)
    if any(isinstance(part, DTensor) for part in parts.values()):
        torch.distributed.all_reduce(cut)
    return whole + float(cut)


def _linear(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, bool]:
    """Of the weights that only linear layers use, and whose factors are not too large, whether they lie transposed."""
    names = {id(weight): name for name, weight in weights.items()}
    users: dict[str, set[object]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if id(parameter) in names:
                users.setdefault(names[id(parameter)], set()).add(type(module).forward)
    found = {}
    for name, weight in weights.items():
        if weight.ndim == 2 and users.get(name) in ({nn.Linear.forward}, {Conv1D.forward}):
            rows, columns = weight.shape
            if rows**2 + columns**2 <= LARGEST_FACTORS * rows * columns:
                found[name] = users[name] == {Conv1D.forward}
    return found
