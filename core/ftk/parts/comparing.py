"""Objectives that compare the rows of an optimizer step with each other, and how the step is cut all the same."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftk.parts.objective import Batch, Loss, Objective
from ftk.parts.seeding import seed_torch
from ftk.parts.sharing import gathered

if TYPE_CHECKING:
    from ftk.parts.context import Context


class ComparingObjective(Objective):
    """An objective whose loss of a row depends on other rows, such as the negatives of a contrastive loss.

    The rows that are compared are those of the whole optimizer step under this objective, of all micro-batches and
    all processes. Its variant provides ``whole-step``.
    """

    @abstractmethod
    def embed(self, model: nn.Module, batch: Batch, ctx: Context) -> Mapping[str, Tensor]:
        """What the rows of a batch let each other see, each row's by itself.

        Returns:
            by name tensors whose first dimension is the rows: of floating-point numbers (float32, with their graph)
            or of whole numbers. All that the loss depends on goes through them; what is the same for all rows, as
            a learned temperature, is given to each.
        """

    @abstractmethod
    def compare(self, seen: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """The loss of each row among these rows, ``(rows,) float32`` in nats; without the model.

        Args:
            seen: what :meth:`embed` gave of all of them.
            ctx: the moment.
        """

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """The summed loss of a batch whose rows are compared with each other and no others.

        In training the core compares all rows of a step, and this is not called. ``outputs`` is what
        :meth:`embed` gives.
        """
        seen = self.embed(model, batch, ctx)
        return Loss(self.compare(seen, ctx).sum(), batch.count, seen)


class Comparison:
    """The loss of each pass of a step whose rows are compared over all passes (GradCache, Gao et al. 2021, section 3).

    All passes are embedded without a graph; the loss of all rows gives each embedding's gradient; then each pass is
    embedded again, and this gradient goes back through it. So the cut changes neither loss nor gradient, and the
    graph of one pass is in memory at a time. Both times a pass draws the same dropout. Where a step is one pass,
    nothing is done twice.

    Args:
        model: what training calls; of several processes' not the wrapper that exchanges gradients.
        passes: this process's passes of the step.
        objectives: those of all passes of all processes, in an order on which they agree.
        ctx: the moment; gathers over its processes.
        around: what the forward pass of a batch runs in.
    """

    def __init__(
        self,
        model: nn.Module,
        passes: Sequence[tuple[Objective, Batch]],
        objectives: Sequence[Objective],
        ctx: Context,
        around: Callable[[Batch], AbstractContextManager[Any]],
    ) -> None:
        self._around = around
        self._given: dict[int, tuple[int, Tensor, dict[str, Tensor]]] = {}
        for objective in dict.fromkeys(objectives):
            if isinstance(objective, ComparingObjective):
                self._compare(model, objective, passes, ctx)

    def loss(self, objective: Objective, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """The loss of a pass in the step's precision, as the step it is of gives it."""
        if not isinstance(objective, ComparingObjective) or id(batch) not in self._given:
            with ctx.autocast(), self._around(batch):
                return objective.loss(model, batch, ctx)
        number, total, gradients = self._given[id(batch)]
        _seed(ctx, number)
        with ctx.autocast(), self._around(batch):
            seen = objective.embed(model, batch, ctx)
        # Its gradient is the step's; its value is replaced by the rows' share of the step's loss.
        linear = torch.stack([(seen[name] * gradient).sum() for name, gradient in gradients.items()]).sum()
        return Loss(linear + (total - linear.detach()), batch.count, seen)

    def _compare(
        self,
        model: nn.Module,
        objective: ComparingObjective,
        passes: Sequence[tuple[Objective, Batch]],
        ctx: Context,
    ) -> None:
        here = ctx.through(objective)  # an earlier task's head stands on another model
        model = model if here.model is ctx.model else here.model
        own = [(at, batch) for at, (its, batch) in enumerate(passes) if its is objective and batch.count]
        if ctx.world_size == 1 and len(own) == 1:
            return  # it is the whole step, and compares its rows itself
        found = []
        for at, batch in own:
            _seed(ctx, at)
            with torch.no_grad(), ctx.autocast(), self._around(batch):
                seen = objective.embed(model, batch, here)
            found.append({name: tensor.cpu() if ctx.world_size > 1 else tensor for name, tensor in seen.items()})
        everywhere = gathered([(ctx.rank, seen) for seen in found], ctx)
        if not everywhere:
            return
        names = everywhere[0][1]
        whole = {name: torch.cat([seen[name] for _, seen in everywhere]).to(ctx.device) for name in names}
        leaves = {name: tensor.requires_grad_() for name, tensor in whole.items() if tensor.is_floating_point()}
        with torch.enable_grad():
            losses = objective.compare(whole, here)
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        start = sum(len(next(iter(seen.values()))) for rank, seen in everywhere if rank < ctx.rank)
        for at, batch in own:
            stop = start + batch.count
            given = {
                name: gradient[start:stop]
                for name, gradient in zip(leaves, gradients, strict=True)
                if gradient is not None
            }
            self._given[id(batch)] = at, losses[start:stop].detach().sum(), given
            start = stop


def _seed(ctx: Context, number: int) -> None:
    """Make the randomness of a pass a function of seed, stage, step, process and its number in the step."""
    seed_torch(ctx.derived_seed("pass", ctx.step, ctx.rank, number), ctx.device)
