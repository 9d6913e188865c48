"""A-GEM and GEM: a step loses what of it would raise the loss on rows kept of earlier tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftk.parts import Context, Gradients, Mitigation, Source, State, Task, own_rows
from ftk_plugins.mitigations.choosing import items_of
from ftk_plugins.mitigations.earlier import refuse_empty
from ftk_plugins.mitigations.products import products

from .options import AgemOptions


class Agem(Mitigation):
    """The gradient nearest to the step's own that works against no reference.

    With ``average`` the reference is ``r``, the mean of the tasks' gradients, and ``g ← g − min(0, gᵀr)/(rᵀr)·r``
    (Chaudhry et al. 2019, equation 11). With ``each`` every task's gradient is one, and ``g ← g + Σ v_t r_t`` with the
    solution ``v ≥ 0`` of GEM's dual problem (Lopez-Paz & Ranzato 2017, equation 11). All products are of gradients
    with respect to what is trained.

    Its state is which rows it keeps, and how many of the stage's steps were in conflict.
    """

    def __init__(self, options: AgemOptions) -> None:
        self.options = options
        self._kept: dict[str, list[int]] = {}
        self._stage = self._steps = 0
        self._against: dict[str, Tensor | int] = {}
        self._conflicts: Tensor | int = 0

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose the rows of ``task`` that are kept, all of equal chance.

        Raises:
            UserError: the task has no training rows.
        """
        refuse_empty("agem", task, f"nothing of `{task.name}` to look back at")
        order = torch.randperm(len(task.train), generator=ctx.generator("agem", task.name))
        self._kept[task.name] = sorted(order[: self.options.buffer_size].tolist())

    def begin(self, ctx: Context) -> None:
        """Count a new stage's steps from none; those of a stage that goes on, from where it was."""
        if self._stage != ctx.stage:
            self._stage, self._steps, self._conflicts, self._against = ctx.stage, 0, 0, {}

    def sources(self, ctx: Context) -> Sequence[Source]:
        """The rows of each task, of which a step looks at some without training on them."""
        tasks = [task for task in ctx.earlier if task.name in self._kept]
        each = self.options.rows_per_step
        if self.options.constraint == "average":
            each = max(1, each // max(1, len(tasks)))
        sources = []
        for task in tasks:
            items = items_of(task, self._kept[task.name])
            rows = min(each, len(items))
            sources.append(Source(task.name, items, share=0.0, objective=task.objective, reference_rows=rows))
        return sources

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        references = dict(gradients.references)
        found = products([gradients, *references.values()])
        along, gram = found[0, 1:], found[1:, 1:]
        if self.options.constraint == "average":
            against, size = along.sum(), gram.sum()
            share = torch.where(size > 0, -against.clamp(max=0) / size, 0.0)
            added, conflict = share.expand(len(along)), against < 0
        else:
            added, conflict = least_push(gram, along), (along < 0).any()
        acts = added.isfinite() & (added > 0)  # a pass that overflowed says nothing
        for name, gradient in gradients.items():
            own, _ = own_rows(gradient)
            for reference, share, act in zip(references.values(), added, acts, strict=True):
                push = own_rows(reference[name])[0] * share.to(own)
                own.add_(torch.where(act.to(own.device), push, 0.0))
        self._steps += 1
        self._conflicts = self._conflicts + conflict.long()
        for task, product in zip(references, along, strict=True):
            self._against[task] = self._against.get(task, 0) + (product < 0).long()

    def report(self) -> dict[str, Any]:
        steps = max(1, self._steps)
        return {
            "rows": {name: len(indices) for name, indices in self._kept.items()},
            "conflicts": round(int(self._conflicts) / steps, 4),
            "conflicts_by_task": {name: round(int(count) / steps, 4) for name, count in self._against.items()},
        }

    def state_dict(self) -> State:
        counts = {name: int(count) for name, count in self._against.items()}
        return {
            "kept": {name: list(indices) for name, indices in self._kept.items()},
            "stage": self._stage, "steps": self._steps, "conflicts": int(self._conflicts), "against": counts,
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"agem: a state has {', '.join(self.state_dict())}, not {', '.join(state) or 'nothing'}")
        self._kept = {name: list(indices) for name, indices in state["kept"].items()}
        self._stage, self._steps = state["stage"], state["steps"]
        self._conflicts, self._against = state["conflicts"], dict(state["against"])


def least_push(gram: Tensor, along: Tensor) -> Tensor:
    """How much of each reference to add, so that the sum works against none and is nearest to what it was.

    The ``v ≥ 0`` that minimizes ``½ vᵀ gram v + along·v``, by the active set method of Lawson & Hanson (1974).

    Args:
        gram: inner products of the references with each other, ``(n, n) float64``.
        along: those of the gradient with the references, ``(n,) float64``.

    Returns:
        ``(n,) float64``, on the device of ``along``.
    """
    lengths = gram.diagonal().cpu().sqrt()
    scale = torch.where(lengths > 0, 1 / lengths, 0.0)  # all references of length 1, and those of 0 left out
    gram, target = scale[:, None] * gram.cpu() * scale, -scale * along.cpu()
    found, free = torch.zeros_like(target), torch.zeros(len(target), dtype=torch.bool)
    least = 1e-10 * float(target.abs().max())
    for _ in range(3 * len(target)):
        wanted = torch.where(free, -torch.inf, target - gram @ found)
        if not wanted.max() > least:
            break
        free[wanted.argmax()] = True
        while free.any():
            tried = torch.zeros_like(found)
            tried[free] = torch.linalg.pinv(gram[free][:, free], hermitian=True) @ target[free]
            if (tried[free] > 0).all():
                found = tried
                break
            bad = free & (tried <= 0)
            found += (found[bad] / (found[bad] - tried[bad])).min() * (tried - found)
            free &= found > 1e-12 * found.max()
            found[~free] = 0
    return (scale * found).to(along.device)
