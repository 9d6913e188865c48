"""Puts a model between the two ends of its stage, by whatever method of merging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ftk.parts import Adaptation, Context, Depths, MergeMethod, MergePiece, MergeWeight, WeightedSum, own_rows
from ftk_plugins.mitigations.interpolation.averaging import Averaging

PIECE = 2**20
"""About how many entries of a weight are merged at a time."""

Importances = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
"""The Fisher information of what was known before, and of what the stage teaches, by common name."""


class Mover:
    """The trained model of one stage, to be put at any share of the way.

    Args:
        method: merges the start and the trained weights, or the movement between them.
        ctx: the stage, trained.
        averaging: whose average stands for the trained weights; None: they themselves.
        importances: for a method that asks for them.
    """

    def __init__(
        self, method: MergeMethod, ctx: Context, averaging: Averaging | None, importances: Importances | None
    ) -> None:
        assert ctx.adaptation is not None
        self._method, self._ctx, self._averaging, self._importances = method, ctx, averaging, importances
        self._adaptation: Adaptation = ctx.adaptation
        self._depths = Depths(name for name, _ in ctx.model.named_parameters())
        self._scales = isinstance(method, WeightedSum) and averaging is None
        self._seed = ctx.derived_seed("interpolation")

    def move(self, alpha: float) -> None:
        """Put the model at this share of the way; absolute."""
        if not self._scales:
            self._adaptation.rewrite(lambda name, start, end: self._merged(name, start, end, alpha))
        elif {self._share(name, alpha) for name, _ in self._ctx.model.named_parameters()} <= {alpha}:
            self._adaptation.scale(alpha)
        else:
            self._adaptation.scale_each(lambda name: self._share(name, alpha))

    def back(self) -> None:
        """Put the model where training left it."""
        if self._scales:
            self._adaptation.scale(1.0)
        else:
            self._adaptation.rewrite(None)

    def _share(self, name: str, alpha: float) -> float:
        """What is kept of the movement of a weight: its factor, or that of its end."""
        assert isinstance(self._method, WeightedSum)
        weight = MergeWeight(name, (), self._depths.of(name), self._shares(alpha), self._seed, lambda: iter(()))
        share = self._method.factors(weight)[-1]
        return alpha * share if self._method.vectors else share

    def _shares(self, alpha: float) -> tuple[float, ...]:
        """Of the only movement, or of the start and the end."""
        return (1.0,) if self._method.vectors else (1 - alpha, alpha)

    def _merged(self, name: str, start: Tensor, end: Tensor, alpha: float) -> Iterator[tuple[int, int, Tensor]]:
        def pieces() -> Iterator[MergePiece]:
            for first, last in _ranges(start):
                began = start[first:last].to(torch.float32, copy=True)  # a method may overwrite what it is given
                if self._averaging is None:
                    moved = end[first:last].to(began.device, torch.float32) - began
                else:
                    moved = self._averaging.rows(name, first, last).to(began.device)
                models = (moved,) if self._method.vectors else (began, moved + began)
                known = [self._importance(table, name, first, last) for table in self._importances or ()]
                yield MergePiece(
                    first, models, tuple(torch.zeros_like(moved) if own is None else own.to(moved) for own in known)
                )

        shape = tuple(start.shape)
        weight = MergeWeight(name, shape, self._depths.of(name), self._shares(alpha), self._seed, pieces)
        known = self._method.survey(weight)
        for piece in pieces():
            first, last = piece.start, piece.start + piece.models[0].shape[0]
            merged = self._method.combine(piece, weight, known)
            yield first, last, merged.mul_(alpha) if self._method.vectors else merged - start[first:last].float()

    def _importance(self, table: Mapping[str, Tensor], name: str, first: int, last: int) -> Tensor | None:
        found = table.get(self._ctx.common_name(name))
        if found is None:
            return None
        own = own_rows(found)[0]
        return own.view(own.shape or (1,))[first:last].float().clone()


def _ranges(tensor: Tensor) -> Iterator[tuple[int, int]]:
    rows, step = tensor.shape[0], max(1, PIECE // max(1, tensor[:1].numel()))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)
