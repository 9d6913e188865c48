"""The contract of objectives that compare the rows of a step: how the step is cut changes nothing."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from ftk.parts import ComparingObjective
from ftk.parts.comparing import Comparison
from ftk.testing.objectives import hold_close, items_of, loss_of
from ftk.testing.subject import Subject, hold


def a_step_does_not_depend_on_its_cut(subject: Subject) -> None:
    """`whole-step`: a step's loss and gradient are the same however its rows are cut; one row changes others' loss."""
    objective = subject.build()
    told = "whole-step" in subject.spec.provides()
    hold(
        told == isinstance(objective, ComparingObjective),
        f"it is {'no' if told else 'a'} ftk.parts.ComparingObjective, and provides "
        f"`whole-step`{'' if told else ' not'}",
    )
    if not isinstance(objective, ComparingObjective):
        return
    model, items = subject.model(), list(items_of(subject, objective))
    ctx = subject.context(model, objective)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = []
    for size in (len(items), 1, 3):
        batches = [objective.collate(items[start : start + size]) for start in range(0, len(items), size)]
        passes = [(objective, batch) for batch in batches]
        comparison = Comparison(model, passes, [objective], ctx, lambda batch: nullcontext())
        losses = [comparison.loss(objective, model, batch, ctx) for batch in batches]
        total = torch.stack([loss.total for loss in losses]).sum()
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        found.append((total.detach(), [gradient for gradient in gradients if gradient is not None]))
    whole, at_once = found[0]
    hold_close(whole, loss_of(subject, objective, items, model), "the loss of a step and of its rows in one batch")
    for total, cut in found[1:]:
        hold_close(total, whole, "the loss of a step cut in two ways")
        same = all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(cut, at_once, strict=True))
        hold(same, "the gradient of a step depends on its cut")
    alone = torch.stack([loss_of(subject, objective, [item], model) for item in items]).sum()
    hold(not torch.allclose(alone, whole), "rows do not change each other's loss: take Objective, not this")


CLAUSES = (a_step_does_not_depend_on_its_cut,)
