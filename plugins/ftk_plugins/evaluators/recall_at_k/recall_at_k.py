"""Retrieval: how near the top the right counterpart of a row is, among those of all test rows."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Context, Evaluator, Metric, Resampling, Task, predictions
from ftk_plugins.evaluators.recall_at_k.options import PREFIXES, RecallAtKOptions
from ftk_plugins.evaluators.shares import share

ROWS_AT_ONCE = 1024


class RecallAtK(Evaluator):
    """Recall at k and the mean reciprocal rank of exact search by the similarity that the embeddings were made for."""

    def __init__(self, options: RecallAtKOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``recall_at_K`` for each of ``ks`` and ``mrr``, 0 to 1.

        Raises:
            UserError: there are no more candidates than the largest k.
        """
        found = predictions(task, model, ctx)
        own = found.identities
        if own is None:
            own = torch.arange(len(found.values))[:, None].expand(-1, 2)
        metrics = []
        for direction in self.options.directions:
            sides = (found.values, found.references, own)
            if direction == "backward":
                sides = (found.references, found.values, own.flip(1))
            ranks, candidates = ranks_of(*sides)
            if candidates <= max(self.options.ks):
                raise UserError(
                    f"task `{task.name}`: recall at {max(self.options.ks)} is 1 whatever the model does, for there are"
                    f" {candidates} different texts or images to find",
                    "give it more test rows, or lower `ks` of `recall_at_k`",
                )
            prefix = PREFIXES[direction]
            metrics += [share(f"{prefix}recall_at_{k}", ranks <= k) for k in self.options.ks]
            resampling = Resampling(len(ranks), partial(_mean_of, 1 / ranks))
            metrics.append(Metric(f"{prefix}mrr", float((1 / ranks).mean()), True, resampling=resampling))
        return metrics


def _mean_of(values: np.ndarray, rows: np.ndarray) -> float:
    return float(values[rows].mean())


def ranks_of(queries: Tensor, references: Tensor, identities: Tensor) -> tuple[np.ndarray, int]:
    """The rank of the best right candidate of each query, from 1, and how many candidates there are.

    Candidates are the references, equal ones once. Right are a query's own, and those of queries that are equal. A
    wrong one of the same similarity comes first, so that embeddings that are all the same find nothing.

    Args:
        queries: ``(rows, dim) float32``.
        references: ``(rows, dim) float32``.
        identities: ``(rows, 2) int64``, equal for equal queries and for equal references.

    Returns:
        ``(rows,) int64``, and the number.
    """
    _, first, candidate = np.unique(identities[:, 1].numpy(), return_index=True, return_inverse=True)
    _, query = np.unique(identities[:, 0].numpy(), return_inverse=True)
    pairs = np.unique(np.stack([query, candidate]), axis=1)
    starts = np.searchsorted(pairs[0], np.arange(query.max() + 2))
    among = references[torch.from_numpy(first)]
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), ROWS_AT_ONCE):
        similarities = queries[start : start + ROWS_AT_ONCE] @ among.T
        right = torch.zeros(similarities.shape, dtype=torch.bool)
        for row, which in enumerate(query[start : start + ROWS_AT_ONCE]):
            right[row, torch.from_numpy(pairs[1, starts[which] : starts[which + 1]])] = True
        best = similarities.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        ranks[start : start + len(right)] = 1 + ((similarities >= best) & ~right).sum(1).numpy()
    return ranks, len(first)
