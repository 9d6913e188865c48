"""A-GEM: a step whose gradient would raise the loss on remembered rows loses the part of it that does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ftk.parts import Batch, Context, Features, Gradients, Mitigation, Objective, State, Task
from ftk_agem.options import AgemOptions


class Agem(Mitigation):
    """Projects the step's gradient ``g`` where it points against the memory's gradient ``r``.

    ``g ← g − (gᵀr / rᵀr)·r`` if ``gᵀr < 0`` (Chaudhry et al. 2019, equation 11). Both are gradients of the
    trainable parameters, so that it works with every adaptation; only the direction of ``r`` matters.
    Its state is which rows it keeps, and how often it has acted.
    """

    def __init__(self, options: AgemOptions) -> None:
        self.options = options
        self._kept: dict[str, list[int]] = {}
        self._memory: list[tuple[Objective, Features]] = []
        self._steps = self._projected = 0

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose the rows of ``task`` that are kept."""
        order = torch.randperm(len(task.train), generator=ctx.generator("agem", task.name))
        self._kept[task.name] = sorted(order[: self.options.memory].tolist())

    def begin(self, ctx: Context) -> None:
        """Encode the rows that are kept."""
        self._memory = [
            (task.objective, item) for task in ctx.earlier for item in task.train.subset(self._kept[task.name]).items
        ]

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        reference = self._reference(gradients, ctx)
        along = sum(torch.sum(gradients[name] * r) for name, r in reference.items())
        self._steps += 1
        if along < 0:
            self._projected += 1
            length = sum(torch.sum(r * r) for r in reference.values())
            for name, r in reference.items():
                gradients[name].sub_(r * (along / length))

    def report(self) -> dict[str, Any]:
        """How many rows it keeps of each task, and the share of all steps whose gradient it changed."""
        rows = {name: len(indices) for name, indices in self._kept.items()}
        return {"rows": rows, "projected": self._projected / max(self._steps, 1)}

    def state_dict(self) -> State:
        return {"kept": self._kept, "steps": self._steps, "projected": self._projected}

    def load_state_dict(self, state: State) -> None:
        if state.keys() != {"kept", "steps", "projected"}:
            raise ValueError(f"agem: a state has kept, steps and projected, not {', '.join(state) or 'nothing'}")
        self._kept = {name: list(indices) for name, indices in state["kept"].items()}
        self._steps, self._projected = state["steps"], state["projected"]

    def _reference(self, gradients: Gradients, ctx: Context) -> dict[str, Tensor]:
        """The gradient on rows drawn from the memory, summed over all processes, by parameter name."""
        parameters = gradients.parameters()
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        for objective, batch in self._draw(ctx):
            # The core calls without autograd. `grad` hands the result over and leaves `.grad` to the step.
            with torch.enable_grad(), ctx.autocast():
                loss = objective.loss(ctx.model, batch.to(ctx.device), ctx).total
            found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, found, strict=True):
                total[name] += gradient
        if ctx.world_size > 1:
            for gradient in total.values():
                torch.distributed.all_reduce(gradient)
        return total

    def _draw(self, ctx: Context) -> Iterator[tuple[Objective, Batch]]:
        """This process's part of the rows drawn for this step, in batches that fit."""
        order = torch.randperm(len(self._memory), generator=ctx.generator("agem", "step", ctx.step))
        places = order[: self.options.rows_per_step].tolist()[ctx.rank :: ctx.world_size]
        drawn = [self._memory[place] for place in places]
        for objective in dict.fromkeys(objective for objective, _ in drawn):
            items = [item for owner, item in drawn if owner is objective]
            for start in range(0, len(items), ctx.micro_batch_size):
                yield objective, objective.collate(items[start : start + ctx.micro_batch_size])
