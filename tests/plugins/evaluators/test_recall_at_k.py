"""Recall at k and the mean reciprocal rank, against counting by hand, candidate by candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftk import UserError
from ftk.testing import toy_context, toy_task
from ftk_plugins.evaluators.recall_at_k.options import RecallAtKOptions
from ftk_plugins.evaluators.recall_at_k.recall_at_k import RecallAtK, ranks_of
from tests.plugins.objectives.classes import tokenizer
from tests.plugins.objectives.retrieval import ROWS, bert, objective


def by_hand(queries: Tensor, references: Tensor, names: list[tuple[str, str]]) -> list[int]:
    """The rank of each query's best right candidate, among candidates by name; the wrong ones of a tie first."""
    candidates = {name: references[row] for row, (_, name) in reversed(list(enumerate(names)))}
    ranks = []
    for query, (asked, _) in zip(queries, names, strict=True):
        right = {name for other, name in names if other == asked}
        scores = {name: float(query @ reference) for name, reference in candidates.items()}
        best = max(scores[name] for name in right)
        ranks.append(1 + sum(score >= best for name, score in scores.items() if name not in right))
    return ranks


def numbers(names: list[tuple[str, str]]) -> Tensor:
    return torch.tensor([[int(one[1:]), int(other[1:])] for one, other in names])


@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_those_counted_by_hand(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    rows = 40
    # Some queries and some references occur several times, with the same embedding as the same text has.
    queried = torch.randint(0, 25, (rows,), generator=random)
    referred = torch.randint(0, 30, (rows,), generator=random)
    queries = torch.randn(25, 6, generator=random).double()[queried]
    references = torch.randn(30, 6, generator=random).double()[referred]
    names = [(f"q{one}", f"r{other}") for one, other in zip(queried.tolist(), referred.tolist(), strict=True)]
    ranks, candidates = ranks_of(queries, references, numbers(names))
    assert ranks.tolist() == by_hand(queries, references, names)
    assert candidates == len(set(referred.tolist()))
    assert 1 < ranks.max() <= candidates


def test_a_duplicate_of_the_match_is_the_match() -> None:
    queries = torch.eye(3)
    references = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    same = numbers([("q0", "r7"), ("q1", "r7"), ("q2", "r8")])
    assert ranks_of(queries, references, same)[0].tolist() == [1, 2, 1]
    apart = numbers([("q0", "r6"), ("q1", "r7"), ("q2", "r8")])
    assert ranks_of(queries, references, apart)[0].tolist() == [2, 3, 1]


def test_embeddings_that_are_all_the_same_find_nothing() -> None:
    ranks, _ = ranks_of(torch.ones(5, 2), torch.ones(5, 2), torch.arange(5)[:, None].expand(-1, 2))
    assert ranks.tolist() == [5] * 5


def measured(rows: list[dict[str, Any]], **options: Any) -> dict[str, float]:
    made, model = objective(), bert()
    task = toy_task(rows, made, processor=tokenizer())
    found = RecallAtK(RecallAtKOptions(**options)).measure(model, task, toy_context(model, made))
    return {metric.name: metric.value for metric in found}


def test_what_a_model_finds_in_both_directions() -> None:
    rows = [*ROWS, {"anchor": "lion", "positive": "it purrs"}]
    made, model = objective(), bert()
    batch = made.collate(made.encode_batch(rows, tokenizer()))
    with torch.no_grad():
        found = made.predict(model, batch, toy_context(model, made))
    told = measured(rows, ks=[1, 3], directions=["forward", "backward"])
    names = [(row["anchor"], row["positive"]) for row in rows]
    there = np.array(by_hand(found.values, found.references, names))
    back = np.array(by_hand(found.references, found.values, [(other, one) for one, other in names]))
    expected = {
        f"{prefix}{name}": value
        for prefix, ranks in (("", there), ("backward_", back))
        for name, value in (
            ("recall_at_1", (ranks <= 1).mean()), ("recall_at_3", (ranks <= 3).mean()), ("mrr", (1 / ranks).mean())
        )
    }  # fmt: skip
    assert told == pytest.approx(expected)
    assert tuple(told) == RecallAtKOptions(ks=(1, 3), directions=("forward", "backward")).metrics()


def test_more_than_can_be_missed_is_refused() -> None:
    with pytest.raises(UserError, match="recall at 5 is 1 whatever the model does, for there are 5"):
        measured(ROWS, ks=[5])
