"""Trims task vectors to their largest entries, without ever holding a weight whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftk.parts import MergeWeight

SAMPLE = 2**14
"""How many entries of a weight say about where its threshold lies."""


@dataclass
class Trim:
    """Which entries of one task vector stay.

    Attributes:
        threshold: the size of the smallest that does.
        equals: how many of exactly this size are still to be kept, in their order; None: all.
    """

    threshold: float
    equals: int | None

    def apply_(self, vector: Tensor) -> None:
        """Set what does not stay to 0; called for the weight's pieces in their order."""
        sizes = vector.abs()
        dropped = sizes < self.threshold
        if self.equals is not None:
            same = (sizes == self.threshold).flatten()
            surplus = same & (same.cumsum(0) > self.equals)
            self.equals = max(0, self.equals - int(same.sum()))
            dropped |= surplus.view_as(dropped)
        vector.masked_fill_(dropped, 0)


def trims_of(weight: MergeWeight, density: float) -> list[Trim]:
    """For each model how its task vector is trimmed to ``density`` of its entries, one at least.

    A sample tells between which two sizes the threshold lies; what lies there is gathered and searched, which is exact.
    """
    models, count = len(weight.shares), math.prod(weight.shape)
    if density == 1 or count == 0:
        return [Trim(0.0, None)] * models
    kept, everything = max(1, int(density * count)), [(0.0, math.inf)] * models
    brackets = _brackets(weight, count // SAMPLE, kept / count) if count > 4 * SAMPLE else everything
    found = _selected(weight, brackets, kept)
    if None in found:
        found = _selected(weight, everything, kept)
    return [trim for trim in found if trim is not None]


def _brackets(weight: MergeWeight, every: int, density: float) -> list[tuple[float, float]]:
    """Two sizes for each model between which the threshold almost surely lies, by a sample of its entries."""
    samples: list[list[Tensor]] = [[] for _ in weight.shares]
    for piece in weight.pieces():
        for sample, vector in zip(samples, piece.models, strict=True):
            sample.append(vector.flatten()[::every].abs())
    brackets = []
    for sample in samples:
        sizes = torch.cat(sample).sort().values
        middle, margin = (1 - density) * len(sizes), 2 + 5 * math.sqrt(len(sizes) * density * (1 - density))
        low, high = math.floor(middle - margin), math.ceil(middle + margin)
        brackets.append((
            sizes[low].item() if low >= 0 else 0.0, sizes[high].item() if high < len(sizes) else math.inf,
        ))  # fmt: skip
    return brackets


def _selected(weight: MergeWeight, brackets: Sequence[tuple[float, float]], kept: int) -> list[Trim | None]:
    """The exact trim of each model; None where its threshold does not lie in its bracket."""
    above, inside = [0] * len(brackets), [list[Tensor]() for _ in brackets]
    for piece in weight.pieces():
        for number, (vector, (low, high)) in enumerate(zip(piece.models, brackets, strict=True)):
            sizes = vector.abs().flatten()
            above[number] += int((sizes > high).sum())
            inside[number].append(sizes[(sizes >= low) & (sizes <= high)])
    return [_trim(torch.cat(values), kept - larger) for values, larger in zip(inside, above, strict=True)]


def _trim(sizes: Tensor, kept: int) -> Trim | None:
    if not 1 <= kept <= len(sizes):
        return None
    threshold = sizes.kthvalue(len(sizes) - kept + 1).values
    larger, equals = int((sizes > threshold).sum()), int((sizes == threshold).sum())
    return Trim(threshold.item(), None if kept - larger == equals else kept - larger)
