"""Squares every sample's gradient of a weight and sums them, making one piece of a gradient at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Shard

from ftk.parts import own_rows

from .sites import Dense, Outer, Part, Scatter

CACHE_ELEMENTS = 1 << 18
"""How much of a gradient is made at a time on a CPU: 1 MiB, to be squared while it lies in the cache."""

GROUP_ELEMENTS = 1 << 27
"""How much of several samples' gradients is made at a time on an accelerator: 512 MiB."""


def add_squares(squares: Tensor, parts: Sequence[Part]) -> None:
    """Add ``Σ_b g_b²`` to ``squares``; sample ``b``'s gradient ``g_b`` is the sum over the parts.

    Sharded sums take in the samples of every process, and so all of them call this at the same time; none keeps more
    than its rows.

    Args:
        squares: float32, shaped as the weight; changed in place.
        parts: from every call of every layer that uses the weight, for one batch of samples.

    Raises:
        TypeError: the weight is used in ways that do not go together.
    """
    if isinstance(squares, DTensor):
        whole = torch.zeros(squares.shape, dtype=squares.dtype, device=squares.device)
        add_squares(whole, parts)
        partial = DTensor.from_local(whole, squares.device_mesh, [Partial()], run_check=False)
        own_rows(squares)[0].add_(own_rows(partial.redistribute(placements=[Shard(0)]))[0])
        return
    squares = squares.flatten(1) if squares.ndim > 2 else squares  # a view: what is added to it is added to the sums
    dense = [part for part in parts if isinstance(part, Dense)]
    outer = [part for part in parts if isinstance(part, Outer)]
    scatter = [part for part in parts if isinstance(part, Scatter)]
    if dense:
        if len(dense) != len(parts):
            raise TypeError("one weight is both a matrix and a vector of a layer")
        total = torch.stack([part.values for part in dense]).sum(0)
        squares.add_(total.square_().sum(0))
    elif not outer:
        _scattered(squares, scatter)
    elif squares.device.type == "cpu":
        _by_sample(squares, outer, scatter)
    else:
        _by_group(squares, outer, scatter)


def _scattered(squares: Tensor, scatter: Sequence[Scatter]) -> None:
    """Embeddings: only the rows that occur are made."""
    rows, columns = squares.shape
    batch = scatter[0].indices.shape[0]
    first = torch.arange(batch, device=squares.device)[:, None] * rows
    keys = torch.cat([(part.indices + first).flatten() for part in scatter])
    values = torch.cat([part.values.flatten(0, 1) for part in scatter])
    found, inverse = keys.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    gradients = values.new_zeros(len(found), columns).index_add_(0, inverse, values)
    squares.index_add_(0, found % rows, gradients.square_())


def _by_sample(squares: Tensor, outer: Sequence[Outer], scatter: Sequence[Scatter]) -> None:
    """Piece by piece of the weight, sample by sample, in one small buffer."""
    rows, columns = squares.shape
    step = min(rows, max(1, CACHE_ELEMENTS // columns))
    buffer = squares.new_empty(step, columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        piece, gradient = squares[start:stop], buffer[: stop - start]
        for sample in range(outer[0].left.shape[0]):
            for number, part in enumerate(outer):
                left, right = part.left[sample, :, start:stop].T, part.right[sample]
                torch.addmm(gradient, left, right, beta=min(number, 1), out=gradient)
            for added in scatter:
                here = (added.indices[sample] >= start) & (added.indices[sample] < stop)
                gradient.index_add_(0, added.indices[sample][here] - start, added.values[sample][here])
            piece.addcmul_(gradient, gradient)


def _by_group(squares: Tensor, outer: Sequence[Outer], scatter: Sequence[Scatter]) -> None:
    """As many samples at once as fit, so that few kernels are launched."""
    rows, columns = squares.shape
    batch = outer[0].left.shape[0]
    step = min(batch, max(1, GROUP_ELEMENTS // squares.numel()))
    for start in range(0, batch, step):
        group = slice(start, start + step)
        gradients = torch.bmm(outer[0].left[group].mT, outer[0].right[group])
        for part in outer[1:]:
            gradients.baddbmm_(part.left[group].mT, part.right[group])
        first = torch.arange(len(gradients), device=squares.device)[:, None] * rows
        for added in scatter:
            keys = (added.indices[group] + first).flatten()
            gradients.view(-1, columns).index_add_(0, keys, added.values[group].flatten(0, 1))
        norm = torch.linalg.vector_norm(gradients, dim=0)  # one pass over the gradients, nothing of their size is made
        squares.addcmul_(norm, norm)
