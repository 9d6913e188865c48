"""MEGA-I: adds the gradient of remembered rows to that of the step, weighed by the losses of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ftk.parts import Batch, Context, Features, Gradients, Loss, Mitigation, Objective, State, Task, add_up
from ftk_mega.options import MegaOptions


class Mega(Mitigation):
    """Balances old and new by how well the model does on each: ``g ← g + (L_old / L_new)·r``.

    ``g`` and ``L_new`` are the step's gradient and mean loss, ``r`` and ``L_old`` those of rows drawn from the memory.
    A step that has nothing left to learn, with ``L_new`` at most ``learned``, serves the memory alone: ``g ← r`` (Guo
    et al. 2020, MEGA-I). All gradients are of what is trained, so that it works with every adaptation.
    Its state is which rows it keeps, and the sum of the weights it has given to ``r``.
    """

    def __init__(self, options: MegaOptions) -> None:
        self.options = options
        self._kept: dict[str, list[int]] = {}
        self._memory: list[tuple[Objective, Features]] = []
        self._new: list[tuple[Tensor, int]] = []
        self._steps, self._weights = 0, 0.0

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose the rows of ``task`` that are kept."""
        order = torch.randperm(len(task.train), generator=ctx.generator("mega", task.name))
        self._kept[task.name] = sorted(order[: self.options.memory].tolist())

    def begin(self, ctx: Context) -> None:
        """Encode the rows that are kept."""
        self._memory = [
            (task.objective, item) for task in ctx.earlier for item in task.train.subset(self._kept[task.name]).items
        ]

    def penalty(self, batch: Batch, loss: Loss, ctx: Context) -> None:
        """Adds nothing to the loss; notes what it is."""
        self._new.append((loss.total.detach(), batch.count))

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        old, reference = self._reference(gradients, ctx)
        total, count = add_up([sum(float(loss) for loss, _ in self._new), sum(count for _, count in self._new)], ctx)
        self._new, new = [], total / max(count, 1)
        learning = new > self.options.learned
        weight = old / new if learning else 1.0
        for name, r in reference.items():
            gradients[name].mul_(learning).add_(r, alpha=weight)
        self._steps, self._weights = self._steps + 1, self._weights + weight

    def report(self) -> dict[str, Any]:
        """How many rows it keeps of each task, and the mean weight of the memory's gradient over all steps."""
        rows = {name: len(indices) for name, indices in self._kept.items()}
        return {"rows": rows, "weight": round(self._weights / max(self._steps, 1), 4)}

    def state_dict(self) -> State:
        return {"kept": self._kept, "steps": self._steps, "weights": self._weights}

    def load_state_dict(self, state: State) -> None:
        if state.keys() != {"kept", "steps", "weights"}:
            raise ValueError(f"mega: a state has kept, steps and weights, not {', '.join(state) or 'nothing'}")
        self._kept = {name: list(indices) for name, indices in state["kept"].items()}
        self._steps, self._weights = state["steps"], state["weights"]

    def _reference(self, gradients: Gradients, ctx: Context) -> tuple[float, dict[str, Tensor]]:
        """Mean loss and gradient on rows drawn from the memory, over all processes; the gradient by parameter name."""
        parameters = gradients.parameters()
        summed = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        total, count = 0.0, 0
        for objective, batch in self._draw(ctx):
            # The core calls without autograd. `grad` hands the result over and leaves `.grad` to the step.
            with torch.enable_grad(), ctx.autocast():
                loss = objective.loss(ctx.model, batch.to(ctx.device), ctx)
            found = torch.autograd.grad(loss.total, list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, found, strict=True):
                summed[name] += gradient
            total, count = total + float(loss.total), count + loss.count
        total, targets = add_up([total, count], ctx)
        for gradient in summed.values():
            if ctx.world_size > 1:
                torch.distributed.all_reduce(gradient)
            gradient /= targets
        return total / targets, summed

    def _draw(self, ctx: Context) -> Iterator[tuple[Objective, Batch]]:
        """This process's part of the rows drawn for this step, in batches that fit."""
        order = torch.randperm(len(self._memory), generator=ctx.generator("mega", "step", ctx.step))
        places = order[: self.options.rows_per_step].tolist()[ctx.rank :: ctx.world_size]
        drawn = [self._memory[place] for place in places]
        for objective in dict.fromkeys(objective for objective, _ in drawn):
            items = [item for owner, item in drawn if owner is objective]
            for start in range(0, len(items), ctx.micro_batch_size):
                yield objective, objective.collate(items[start : start + ctx.micro_batch_size])
