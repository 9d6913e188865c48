"""Sums every sample's squared gradient of a matrix over its rows and over its columns, without keeping the squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .sites import Dense, Outer, Part, Scatter
from .squares import device_of, embedded, pieces


def add_margins(rows: Tensor, columns: Tensor, parts: Sequence[Part]) -> None:
    """Add ``Σ_b Σ_j g_bij²`` to ``rows`` and ``Σ_b Σ_i g_bij²`` to ``columns``; ``g_b`` is the sum over the parts.

    A gradient is a sum over positions, ``Gᵀ X`` with ``G (time, m)`` and ``X (time, n)``. Where that is less work its
    margins are had without it: ``diag(Gᵀ (X Xᵀ) G)`` and ``diag(Xᵀ (G Gᵀ) X)``.

    Args:
        rows: ``(m,) float32``; changed in place.
        columns: ``(n,) float32``, of a weight with more than two dimensions all but the first; changed in place.
        parts: from every call of every layer that uses the weight, for one batch of samples.

    Raises:
        TypeError: the weight is used in ways that do not go together.
    """
    device = device_of(parts[0])
    if rows.device != device:  # the weight lies away from where its layer computes
        there = [torch.zeros_like(each, device=device) for each in (rows, columns)]
        add_margins(there[0], there[1], parts)
        rows += there[0].to(rows.device)
        columns += there[1].to(columns.device)
        return
    dense = [part for part in parts if isinstance(part, Dense)]
    outer = [part for part in parts if isinstance(part, Outer)]
    scatter = [part for part in parts if isinstance(part, Scatter)]
    if dense and len(dense) != len(parts):
        raise TypeError("one weight is both a matrix and a vector of a layer")
    if dense:
        squares = torch.stack([part.values for part in dense]).sum(0).flatten(2).square_()
        rows += squares.sum((0, 2))
        columns += squares.sum((0, 1))
    elif not outer:
        at, gradients = embedded(len(rows), scatter)
        squares = gradients.square_()
        rows.index_add_(0, at, squares.sum(1))
        columns += squares.sum(0)
    elif not scatter and _cheaper_by_positions(outer):
        left, right = (torch.cat([getattr(part, side) for part in outer], dim=1) for side in ("left", "right"))
        rows += left.mul(torch.bmm(right @ right.mT, left)).sum((0, 1))
        columns += right.mul(torch.bmm(left @ left.mT, right)).sum((0, 1))
    else:
        for start, gradients in pieces(len(rows), outer, scatter):
            squares = gradients.square_()
            rows[start : start + squares.shape[1]] += squares.sum((0, 2))
            columns += squares.sum((0, 1))


def _cheaper_by_positions(outer: Sequence[Outer]) -> bool:
    """By the products' operations, ``2 T² (m + n)`` in place of ``T m n``."""
    time = sum(part.left.shape[1] for part in outer)
    m, n = outer[0].left.shape[2], outer[0].right.shape[2]
    return 2 * time * (m + n) <= m * n
