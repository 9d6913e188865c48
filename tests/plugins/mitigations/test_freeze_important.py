"""`freeze_important`: which entries it chooses, by an independent ranking, and that nothing moves them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ftk.parts import Context
from ftk.running.composition import Composition
from ftk_plugins.mitigations.freeze_important.freeze_important import FreezeImportant
from ftk_plugins.mitigations.freeze_important.options import FreezeImportantOptions
from tests.core.loops import build
from tests.plugins.mitigations.ewc_stage import OBJECTIVE, stage, task
from tests.plugins.mitigations.refusing import told_of
from tests.plugins.mitigations.test_ewc import loss_of, train


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def whole(**changes: Any) -> Context:
    return stage(build("adaptation", "full"), **changes)


def begun(ctx: Context, **options: Any) -> FreezeImportant:
    part = FreezeImportant(FreezeImportantOptions(**options))
    part.remember(task(), ctx)
    part.begin(ctx)
    return part


def masks_of(part: FreezeImportant) -> dict[str, Tensor]:
    return {key.removeprefix("mask/"): value for key, value in part.state_dict().items() if key.startswith("mask/")}


def sizes(ctx: Context, by: str) -> dict[str, Tensor]:
    """One row and one backward pass at a time."""
    named = dict(ctx.model.named_parameters())
    if by == "magnitude":
        return {name: weight.detach().abs() for name, weight in named.items()}
    sums = {name: torch.zeros_like(weight) for name, weight in named.items()}
    for item in task().train.pieces:
        loss = OBJECTIVE.loss(ctx.model, OBJECTIVE.collate([item]), ctx)
        of = loss.total if by == "fisher" else loss.outputs["logits"].square().sum()
        for name, gradient in zip(named, torch.autograd.grad(of, list(named.values())), strict=True):
            sums[name] += gradient.square() if by == "fisher" else gradient.abs()
    return sums


@pytest.mark.parametrize(
    ("by", "scope"), [("fisher", "tensor"), ("fisher", "all"), ("mas", "tensor"), ("magnitude", "all")]
)
def test_it_freezes_the_share_that_matters_most(by: str, scope: str) -> None:
    ctx = whole()
    expected = sizes(ctx, by)
    found = masks_of(begun(ctx, by=by, scope=scope, share=0.3))
    assert found.keys() == expected.keys()
    groups = [[name] for name in found] if scope == "tensor" else [list(found)]
    for names in groups:
        flat = torch.cat([expected[name].flatten() for name in names])
        mask = torch.cat([found[name].flatten() for name in names])
        nonzero, count = int((flat > 0).sum()), math.ceil(0.3 * len(flat))
        assert abs(int(mask.sum()) - min(nonzero, count)) <= 1
        # The two differ in the last bits of what they rank.
        if 0 < mask.sum() < len(mask):
            assert flat[mask].min() >= flat[~mask].max() * (1 - 1e-3)
    report = begun(ctx, by=by, scope=scope, share=0.3).report()
    assert report["frozen_weights"] == sum(int(mask.sum()) for mask in found.values())
    assert ("tasks" in report) == (by != "magnitude")


def stepped(part: Any, ctx: Context, steps: int = 3) -> Any:
    """Steps of AdamW with decay and a momentum that is there before the first of them."""
    together = Composition({"freeze": part})
    optimizer = torch.optim.AdamW(ctx.model.parameters(), lr=1e-2, weight_decay=0.5)
    for parameter in ctx.model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(1.0), "exp_avg": torch.ones_like(parameter), "exp_avg_sq": torch.ones_like(parameter),
        }  # fmt: skip
    batch, gradients = OBJECTIVE.collate(task("new", 6).train.items), ctx.gradients()
    for _ in range(steps):
        (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).backward()
        together.edit_gradients(gradients, ctx)
        seen = {name: gradient.clone() for name, gradient in gradients.items()}
        optimizer.step()
        optimizer.zero_grad()
        together.after_step(ctx)
    return seen


def test_neither_gradient_nor_momentum_nor_decay_moves_what_is_frozen() -> None:
    ctx = whole()
    part = begun(ctx, share=0.4)
    masks = masks_of(part)
    before = {name: weight.detach().clone() for name, weight in ctx.model.named_parameters()}
    seen = stepped(part, ctx)
    for name, weight in ctx.model.named_parameters():
        assert torch.equal(weight[masks[name]], before[name][masks[name]]), name
        assert not seen[name][masks[name]].any(), "the norm that is clipped is of what moves"
        assert (weight != before[name])[~masks[name]].all(), name


def test_a_stage_that_resumes_freezes_the_same_and_the_next_one_chooses_anew() -> None:
    ctx = whole()
    part = begun(ctx, by="magnitude", share=0.4)
    stepped(part, ctx)
    again = FreezeImportant(part.options)
    again.load_state_dict(part.state_dict())
    again.begin(ctx)
    assert all(torch.equal(masks_of(again)[name], mask) for name, mask in masks_of(part).items())
    again.begin(replace(ctx, stage=2))
    assert any(not torch.equal(masks_of(again)[name], mask) for name, mask in masks_of(part).items())
    with pytest.raises(ValueError, match="rows"):
        again.load_state_dict({"rows": 1})


def test_what_is_seen_of_several_tasks_is_summed() -> None:
    ctx = whole()
    both = FreezeImportant(FreezeImportantOptions(share=0.4))
    for each in (task("a"), task("b", 6)):
        both.remember(each, ctx)
    both.begin(ctx)
    alone = begun(ctx, share=0.4)
    assert any(not torch.equal(masks_of(both)[name], mask) for name, mask in masks_of(alone).items())
    assert list(both.report()["tasks"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "changed", "told"),
    [
        ({}, {"adaptation": {"use": "lora"}}, "needs own-weights, which adaptation `lora` does not provide"),
        ({}, {}, "needs earlier-data"),
        ({"by": "magnitude"}, {}, ""),
        ({"by": "magnitude"}, {"adaptation": {"use": "full", "start_copy": "none"}}, "needs weight-drift"),
    ],
)
def test_it_is_refused_where_it_cannot_act(options: dict[str, Any], changed: dict[str, Any], told: str) -> None:
    found = told_of({"use": "freeze_important", **options}, changed)
    assert bool(found) == bool(told)
    assert told in found


def test_it_holds_what_plain_training_forgets() -> None:
    found = {}
    first = whole()
    old, new = task("old", rows=4), task("new", first=20, rows=4)
    train(first, old, 60)
    start = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    for share in (None, 0.7):
        first.model.load_state_dict(start)
        ctx = whole(model=first.model)
        together = Composition({})
        if share is not None:
            part = FreezeImportant(FreezeImportantOptions(share=share))
            part.remember(old, ctx)
            part.begin(ctx)
            together = Composition({"freeze": part})
        optimizer = torch.optim.AdamW(ctx.model.parameters(), lr=5e-3)
        batch, gradients = OBJECTIVE.collate(new.train.items), ctx.gradients()
        for _ in range(30):
            (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).backward()
            together.edit_gradients(gradients, ctx)
            optimizer.step()
            optimizer.zero_grad()
            together.after_step(ctx)
        found[share] = {each.name: loss_of(ctx, each) for each in (old, new)}
    assert found[0.7]["old"] < 0.8 * found[None]["old"], found
    assert found[0.7]["new"] < 2.0, found
