"""Sums the squares, or the sizes, of every sample's gradient of a weight, making one piece of a gradient at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Shard

from ftk.parts import own_rows

from .sites import Dense, Outer, Part, Scatter

Measure = Literal["square", "absolute"]
"""What is summed of each number of a sample's gradient: its square, or its size."""

PIECE_ELEMENTS = 1 << 17
"""How much of one sample's gradient a CPU makes at a time: 512 KiB."""

THREAD_ELEMENTS = 1 << 18
"""How much of several samples' gradients each CPU thread makes and then squares: 1 MiB, which stays in its cache."""

GROUP_ELEMENTS = 1 << 27
"""How much of several samples' gradients is made at a time on an accelerator: 512 MiB."""


def add_squares(squares: Tensor, parts: Sequence[Part], of: Measure = "square") -> None:
    """Add ``Σ_b g_b²``, or ``Σ_b |g_b|``, to ``squares``; sample ``b``'s gradient ``g_b`` is the sum over the parts.

    Sharded sums take in the samples of every process, and so all of them call this at the same time; none keeps more
    than its rows.

    Args:
        squares: float32, shaped as the weight; changed in place.
        parts: from every call of every layer that uses the weight, for one batch of samples.
        of: which of the two.

    Raises:
        TypeError: the weight is used in ways that do not go together.
    """
    device = device_of(parts[0])
    if squares.device != device:  # the weight lies away from where its layer computes
        there = torch.zeros(squares.shape, dtype=squares.dtype, device=device)
        add_squares(there, parts, of)
        squares.add_(there.to(squares.device))
        return
    if isinstance(squares, DTensor):
        whole = torch.zeros(squares.shape, dtype=squares.dtype, device=squares.device)
        add_squares(whole, parts, of)
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
        squares.add_(of_each(total, of).sum(0))
    elif not outer:
        at, gradients = embedded(len(squares), scatter)
        squares.index_add_(0, at, of_each(gradients, of))
    else:
        for start, gradients in pieces(len(squares), outer, scatter):
            _add_each(squares[start : start + gradients.shape[1]], gradients, of)


def of_each(gradient: Tensor, of: Measure) -> Tensor:
    """The squares, or the sizes, in place."""
    return gradient.square_() if of == "square" else gradient.abs_()


def embedded(rows: int, scatter: Sequence[Scatter]) -> tuple[Tensor, Tensor]:
    """Of embeddings only the rows that occur: which they are, of one sample after the other, and their gradients."""
    batch = scatter[0].indices.shape[0]
    first = torch.arange(batch, device=scatter[0].indices.device)[:, None] * rows
    keys = torch.cat([(part.indices + first).flatten() for part in scatter])
    values = torch.cat([part.values.flatten(0, 1) for part in scatter])
    found, inverse = keys.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return found % rows, values.new_zeros(len(found), values.shape[1]).index_add_(0, inverse, values)


def pieces(rows: int, outer: Sequence[Outer], scatter: Sequence[Scatter]) -> Iterator[tuple[int, Tensor]]:
    """Matrices: a piece of the weight for a group of samples at a time, ``(samples, some rows, columns)``.

    With each comes the first of its rows. They lie in one buffer: the next overwrites the one before.
    """
    batch, columns = len(outer[0].left), outer[0].right.shape[2]
    on_cpu = _on_cpu(outer[0].left)
    step, group = _cut(rows, columns, batch, on_cpu)
    buffer = outer[0].left.new_empty(group * step * columns)
    for start in range(0, rows, step):
        height = min(step, rows - start)
        for first in range(0, batch, group):
            samples = slice(first, min(first + group, batch))
            shape = (samples.stop - first, height, columns)
            gradients = buffer[: math.prod(shape)].view(shape)
            for number, part in enumerate(outer):
                left, right = part.left[samples, :, start : start + height].mT, part.right[samples]
                if number == 0:
                    torch.bmm(left, right, out=gradients)
                else:
                    gradients.baddbmm_(left, right)
            for added in scatter:
                _put(gradients, added.indices[samples] - start, added.values[samples])
            yield start, gradients


def _cut(rows: int, columns: int, batch: int, on_cpu: bool) -> tuple[int, int]:
    """How many rows of the weight are made at a time, and for how many samples."""
    if not on_cpu:  # as many samples as fit, so that few kernels are launched
        return rows, min(batch, max(1, GROUP_ELEMENTS // (rows * columns)))
    step = min(rows, max(1, PIECE_ELEMENTS // columns))
    return step, min(batch, torch.get_num_threads() * max(1, THREAD_ELEMENTS // (step * columns)))


def _put(gradients: Tensor, indices: Tensor, values: Tensor) -> None:
    """Add ``values[b, t]`` to row ``indices[b, t]`` of ``gradients[b]``, where it has this row."""
    samples, rows, columns = gradients.shape
    here = (indices >= 0) & (indices < rows)
    keys = indices + torch.arange(samples, device=indices.device)[:, None] * rows
    gradients.view(-1, columns).index_add_(0, keys[here], values[here])


def _add_each(piece: Tensor, gradients: Tensor, of: Measure) -> None:
    """Add the squares, or the sizes, of ``gradients``, ``(samples, *piece.shape)``, to ``piece``."""
    if of == "absolute":
        piece.add_(gradients.abs_().sum(0))
        return
    if not _on_cpu(gradients):
        norm = torch.linalg.vector_norm(gradients, dim=0)  # one pass, in which nothing of their size is made
        piece.addcmul_(norm, norm)
        return
    # A batched product gives each thread as many samples as the next, and so each squares those that it has made.
    shares = math.gcd(len(gradients), torch.get_num_threads())
    sums = piece.new_zeros(shares, *piece.shape)
    for part in gradients.view(shares, -1, *piece.shape).unbind(1):
        sums.addcmul_(part, part)
    piece.add_(sums.sum(0))


def device_of(part: Part) -> torch.device:
    """Where a part lies."""
    return part.left.device if isinstance(part, Outer) else part.values.device


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
