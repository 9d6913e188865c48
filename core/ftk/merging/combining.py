"""Merges weight by weight, some rows at a time: reads, hands the pieces to the method, converts what it returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ftk.errors import RunFailed
from ftk.merging.adapters import LowRank
from ftk.merging.checking import Merged, MergePlan
from ftk.merging.folders import Stored
from ftk.parts import Depths, MergePiece, MergeWeight

PIECE = 2**19
"""About how many entries of a weight are merged at a time: few enough to stay in a processor's cache."""
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Files:
    """Reads rows of tensors; the files stay open, the buffers are used again."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._buffers: dict[object, Bytes] = {}

    def close(self) -> None:
        """Close them."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open, self._buffers = {}, {}

    def raw(self, stored: Stored, start: int, stop: int, slot: object) -> Bytes:
        """The bytes of some rows, in the buffer ``slot``: valid until it is read into again.

        Raises:
            RunFailed: the file has become shorter.
        """
        size = (stop - start) * stored.row_bytes
        if (buffer := self._buffers.get(slot)) is None or len(buffer) < size:
            buffer = self._buffers[slot] = np.empty(size, dtype=np.uint8)
        if stored.file not in self._open:
            self._open[stored.file] = os.open(stored.file, os.O_RDONLY)
        place, view = stored.offset + start * stored.row_bytes, buffer[:size].data
        while view:
            done = os.preadv(self._open[stored.file], [view], place)
            if not done:
                raise RunFailed(f"{stored.file}: ends before it should; did something change it?")
            place, view = place + done, view[done:]
        return buffer[:size]

    def rows(self, stored: Stored, start: int, stop: int, slot: object) -> Tensor:
        """Some rows in float32, as :meth:`raw` reads them."""
        raw = torch.from_numpy(self.raw(stored, start, stop, slot))
        return raw.view(TYPES[stored.dtype]).view(stop - start, *stored.shape[1:]).float()


class Combiner:
    """The merged weights of a plan.

    Args:
        plan: what is merged.
        piece: about how many entries at a time.
    """

    def __init__(self, plan: MergePlan, piece: int = PIECE) -> None:
        self.files = Files()
        self._plan, self._piece = plan, piece
        self._depths = Depths(weight.name for weight in plan.weights)
        self._base = torch.empty(0)
        self._factors: tuple[str, list[tuple[Tensor, Tensor] | None]] = ("", [])

    def chunks(self, weight: Merged) -> Iterator[Bytes]:
        """The bytes of one weight in order, in the type in which it is written."""
        if weight.copied and weight.dtype == weight.base.dtype:
            for start, stop in self._ranges(weight.base):
                yield self.files.raw(weight.base, start, stop, "base")
            return
        kind = TYPES[weight.dtype]
        for rows in self.merged(weight):
            stored = rows.to(kind).contiguous()
            if kind is torch.float16 and not torch.isfinite(stored).all():
                hint = "write it as bfloat16 or float32"
                raise RunFailed(f"{weight.name}: has numbers that float16 does not hold, or that are none\n  {hint}")
            yield stored.view(-1).view(torch.uint8).numpy()

    def merged(self, weight: Merged) -> Iterator[Tensor]:
        """The merged rows in order, float32."""
        if weight.copied:
            for start, stop in self._ranges(weight.base):
                yield self.files.rows(weight.base, start, stop, "base")
            return
        method, whole = self._plan.method, self.weight(weight)
        known = method.survey(whole)
        for piece in whole.pieces():
            rows = method.combine(piece, whole, known)
            yield rows.add_(self._base) if method.vectors else rows

    def changes(self, weight: Merged) -> Iterator[Tensor]:
        """The merged rows less the base's."""
        start = 0
        for rows in self.merged(weight):
            yield rows - self.files.rows(weight.base, start, start + rows.shape[0], "change")
            start += rows.shape[0]

    def weight(self, weight: Merged) -> MergeWeight:
        """The weight as its method sees it."""
        request, shape = self._plan.request, weight.base.shape or (1,)
        depth = self._depths.of(weight.name)
        return MergeWeight(
            weight.name, shape, depth, request.shares(), request.options.seed, lambda: self._pieces(weight)
        )

    def _pieces(self, weight: Merged) -> Iterator[MergePiece]:
        vectors = self._plan.method.vectors
        for start, stop in self._ranges(weight.base):
            if vectors or any(isinstance(model, LowRank) for model in weight.models):
                self._base = self.files.rows(weight.base, start, stop, "base")
            models = tuple(self._rows(weight, number, start, stop) for number in range(len(weight.models)))
            importances = tuple(
                self.files.rows(stored, start, stop, ("importance", number))
                for number, stored in enumerate(weight.importances)
            )
            yield MergePiece(start, models, importances)

    def _rows(self, weight: Merged, number: int, start: int, stop: int) -> Tensor:
        model, vectors = weight.models[number], self._plan.method.vectors
        if isinstance(model, LowRank):
            left, right = self._product(weight, number, model)
            moved = left[start:stop] @ right
            return moved if vectors else moved.add_(self._base)
        rows = self.files.rows(model, start, stop, number)
        return rows.sub_(self._base) if vectors else rows

    def _product(self, weight: Merged, number: int, model: LowRank) -> tuple[Tensor, Tensor]:
        """The two factors in the layout of the base, read once for each weight."""
        if self._factors[0] != weight.name:
            self._factors = (weight.name, [None] * len(weight.models))
        found = self._factors[1][number]
        if found is None:
            a, b = (self.files.rows(it, 0, it.rows, (number, it.offset)).clone() for it in (model.a, model.b))
            b.mul_(model.scale)
            found = self._factors[1][number] = (a.T.contiguous(), b.T.contiguous()) if model.transposed else (b, a)
        return found

    def _ranges(self, stored: Stored) -> Iterator[tuple[int, int]]:
        entries = max(1, int(np.prod(stored.shape[1:], dtype=np.int64)))
        step = max(1, self._piece // entries)
        for start in range(0, stored.rows, step):
            yield start, min(start + step, stored.rows)
