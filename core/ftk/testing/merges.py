"""The contract of methods of merging: a weight at a time, the same in any pieces, nothing from nothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ftk.parts import MergeMethod, MergePiece, MergeWeight
from ftk.testing.subject import Subject, hold

SHAPE = (12, 7)


def gives_rows_as_it_takes_them(subject: Subject) -> None:
    """What `combine` returns is finite, float32 and shaped like the rows it was handed, also for weights of zeros."""
    method = subject.build()
    for models in (_models(method), [torch.zeros(SHAPE) for _ in _models(method)]):
        merged = _merged(method, models)
        hold(merged.shape == torch.Size(SHAPE), f"of {SHAPE} it made {tuple(merged.shape)}")
        hold(merged.dtype == torch.float32, f"it gives {merged.dtype}")
        hold(torch.isfinite(merged).all(), "not finite")


def nothing_merges_to_nothing(subject: Subject) -> None:
    """Models that are all alike merge into the same; of task vectors, those of zeros into zeros."""
    method = subject.build()
    one = torch.zeros(SHAPE) if method.vectors else _models(method)[0]
    merged = _merged(method, [one.clone() for _ in _models(method)])
    hold(torch.allclose(merged, one, atol=1e-6), f"they differ by {(merged - one).abs().max():g}")


def the_same_seed_gives_the_same(subject: Subject) -> None:
    """Merged twice with one seed, also by another object, the result is the same bit for bit."""
    one, other = (_merged(part, _models(part)) for part in (subject.build(), subject.build()))
    hold(torch.equal(one, other), "two merges differ: draw from `weight.generator`")


def it_does_not_depend_on_the_cut(subject: Subject) -> None:
    """However a weight is cut into pieces, the result is the same, unless the method draws."""
    method = subject.build()
    whole, cut = (_merged(method, _models(method), rows) for rows in (SHAPE[0], 5))
    drawn = not torch.equal(whole, _merged(method, _models(method), seed=1))
    same = drawn or torch.allclose(whole, cut, atol=1e-6)
    hold(same, "rows merged in pieces differ: what is of the whole weight is for `survey`")


def _models(method: MergeMethod) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(method.most or max(3, method.fewest))]


def _merged(method: MergeMethod, models: list[Tensor], rows: int = SHAPE[0], seed: int = 0) -> Tensor:
    def pieces() -> Iterator[MergePiece]:
        for start in range(0, SHAPE[0], rows):
            own = tuple(model[start : start + rows].clone() for model in models)
            importances = tuple(model.abs() + number for number, model in enumerate(own)) if method.importances else ()
            yield MergePiece(start, own, importances)

    weight = MergeWeight("model.layers.1.weight", SHAPE, 0.5, (1.0,) * len(models), seed, pieces)
    known = method.survey(weight)
    return torch.cat([method.combine(piece, weight, known) for piece in pieces()])


CLAUSES = (
    gives_rows_as_it_takes_them,
    nothing_merges_to_nothing,
    the_same_seed_gives_the_same,
    it_does_not_depend_on_the_cut,
)
