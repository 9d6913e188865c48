"""How much tasks depend on each part of a model: the mean Fisher information of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ftk import UserError
from ftk.parts import ComparingObjective, Context, Task
from ftk_plugins.mitigations.ewc.fisher import Estimate, estimate_fisher


def importance(
    tasks: Sequence[Task],
    ctx: Context,
    weights: Mapping[str, nn.Parameter],
    heights: Mapping[nn.Parameter, int],
    samples: int,
) -> dict[int, float]:
    """The mean over a part's weights of the squared gradients of single rows, in ratio to that over all weights.

    Every task counts alike. All processes get the same. The diagonal of a task is in memory once.

    Args:
        tasks: on whose training rows it is measured.
        ctx: the moment; its model is the one that begins to train.
        weights: what is trained, by name.
        heights: the part that each weight is of.
        samples: rows of each task; all where it has fewer.

    Raises:
        UserError: a task's objective compares rows, so that a row has no gradient of its own.
    """
    totals = dict.fromkeys({heights[weight] for weight in weights.values()}, 0.0)
    for task in tasks:
        if isinstance(task.objective, ComparingObjective):
            raise UserError(
                f"adaptation.order: the objective of `{task.name}` compares rows, and what matters to it is measured "
                "by the gradients of single rows",
                'Leave it out, or write order = "depth".',
            )
        here = ctx.through(task.objective)
        there = {id(parameter) for parameter in here.model.parameters()}
        found = {name: weight for name, weight in weights.items() if id(weight) in there}
        fisher = estimate_fisher(task, here, found, Estimate(samples=samples, method="progressive"))
        sums, counts = dict.fromkeys(totals, 0.0), dict.fromkeys(totals, 0)
        for name, weight in found.items():
            sums[heights[weight]] += float(fisher.parts[name].sum(dtype=torch.float64))
            counts[heights[weight]] += weight.numel()
        mean = sum(sums.values()) / max(1, sum(counts.values())) or 1.0
        for height, total in sums.items():
            totals[height] += total / max(1, counts[height]) / mean / len(tasks)
    for weight in weights.values():
        weight.grad = None
    return totals
