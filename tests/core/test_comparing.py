"""Objectives that compare the rows of a step: its loss and its gradient, however the step is cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ftk.data.batches import Batches
from ftk.parts import Batch, Context, Mitigation, Source
from ftk.parts.comparing import Comparison
from ftk.recipe.training import Training
from ftk.running.loop import Loop, Progress
from ftk.testing import toy_context, toy_task
from tests.core.loops import make_loop, weights
from tests.mixers import mixer_of
from tests.plugins.objectives.classes import tokenizer
from tests.plugins.objectives.retrieval import KINDS, batch_of, bert, objective

ROWS = [
    {"anchor": f"{n * 7919 % 1000} {'x' * (n % 5)}", "positive": f"{n * 31 % 97} is it", "negative": [f"{n}", "y"]}
    for n in range(24)
]


class Asks(Mitigation):
    """Wants the gradient of each source apart."""


def loop_of(kind: str = "pairs", by_source: bool = False, replayed: bool = False, **training: Any) -> Loop:
    made = objective(**KINDS[kind])
    loop = make_loop(steps=6, **training)
    model = bert()
    task = toy_task(ROWS[:16], made, processor=tokenizer())
    memory = [Source("replay/old", toy_task(ROWS[16:], made, processor=tokenizer()).train.items, 0.3, made)]
    mixer = mixer_of(task.train.items, made, memory if replayed else [], 0)
    ctx = replace(loop.ctx, model=model, objective=made, task=task, processor=tokenizer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)  # AdamW would take a gradient of rounding errors whole
    return replace(
        loop, ctx=ctx, model=model, batches=Batches(mixer, loop.options), by_source=by_source, optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    )  # fmt: skip


def trained(**options: Any) -> torch.Tensor:
    loop = loop_of(**options)
    loop.train(Progress())
    return weights(loop)


@pytest.mark.parametrize("kind", ["pairs", "triplets", "dot"])
def test_the_cut_of_a_step_does_not_change_the_weights(kind: str) -> None:
    whole = trained(kind=kind)
    for size in (1, 3):
        torch.testing.assert_close(trained(kind=kind, micro_batch_size=size), whole, rtol=1e-4, atol=1e-5)


def test_rows_of_all_sources_are_compared_and_their_gradients_can_be_told_apart() -> None:
    whole = trained(replayed=True)
    torch.testing.assert_close(trained(replayed=True, by_source=True), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trained(replayed=True, micro_batch_size=2), whole, rtol=1e-4, atol=1e-5)


def grads(model: nn.Module, total: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


@pytest.mark.parametrize("kind", ["pairs", "dropout"])
def test_a_pass_draws_the_same_dropout_both_times(kind: str) -> None:
    """So the gradient is that of the loss as one graph over all passes."""
    made, model = objective(**KINDS[kind]), bert(hidden_dropout_prob=0.3).train()
    ctx = toy_context(model, made)
    batches = [batch_of(made, ROWS[start : start + 4]) for start in (0, 4, 8)]
    drawn: list[torch.Tensor] = []

    @contextmanager
    def around(batch: Batch) -> Iterator[None]:
        drawn.append(torch.rand(1))  # as NEFTune does for each forward pass
        yield

    comparison = Comparison(model, [(made, batch) for batch in batches], [made], ctx, around)
    losses = [comparison.loss(made, model, batch, ctx) for batch in batches]
    total = torch.stack([loss.total for loss in losses]).sum()
    assert drawn[:3] == drawn[3:]
    assert len(set(map(float, drawn))) == 3

    seen = []
    for number, batch in enumerate(batches):
        torch.manual_seed(ctx.derived_seed("pass", ctx.step, ctx.rank, number))
        with around(batch):
            seen.append(made.embed(model, batch, ctx))
    whole = {name: torch.cat([each[name] for each in seen]) for name in seen[0]}
    expected = made.compare(whole, ctx).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(grads(model, total), grads(model, expected), rtol=1e-4, atol=1e-5)


def test_several_processes_compare_the_rows_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made, model = objective(**KINDS["triplets"]), bert()
    shares, told = (ROWS[:5], ROWS[5:7]), []

    def record(found: list[Any], own: list[Any]) -> None:
        told.append(own)
        found[:] = [own, *[[]] * (len(found) - 1)]

    def of_rank(rank: int) -> torch.Tensor:
        ctx = toy_context(model, made, rank=rank, world_size=2)
        batches = [batch_of(made, [row]) for row in shares[rank]]
        comparison = Comparison(model, [(made, batch) for batch in batches], [made], ctx, lambda _: nullcontext())
        return torch.stack([comparison.loss(made, model, batch, ctx).total for batch in batches]).sum()

    monkeypatch.setattr(torch.distributed, "all_gather_object", record)
    for rank in (0, 1):
        of_rank(rank)
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda found, own: found.__setitem__(slice(None), told))
    totals = [of_rank(rank) for rank in (0, 1)]
    expected = made.loss(model, batch_of(made, ROWS[:7]), toy_context(model, made)).total
    torch.testing.assert_close(totals[0] + totals[1], expected)
    assert abs(float(totals[0].detach() / expected.detach()) - 5 / 7) < 0.2
    torch.testing.assert_close(
        grads(model, totals[0]) + grads(model, totals[1]), grads(model, expected), rtol=1e-4, atol=1e-5
    )


def test_a_pass_that_does_not_count_is_not_compared() -> None:
    made, model = objective(), bert()
    ctx = toy_context(model, made)
    counts, idle = batch_of(made, ROWS[:4]), replace(batch_of(made, ROWS[4:5]), count=0)
    comparison = Comparison(model, [(made, counts), (made, idle)], [made], ctx, lambda _: nullcontext())
    torch.testing.assert_close(
        comparison.loss(made, model, counts, ctx).total, made.loss(model, batch_of(made, ROWS[:4]), ctx).total
    )
    assert comparison.loss(made, model, idle, ctx).total.requires_grad  # it is made all the same: processes meet in it


def test_steps_of_other_objectives_are_as_before() -> None:
    """No pass is made twice, and no random number is drawn."""
    loop = make_loop()
    calls: list[int] = []
    loop.model.register_forward_pre_hook(lambda *_: calls.append(1))
    loop.options = Training(**{**loop.options.model_dump(), "steps": None, "epochs": 1.0})
    ctx: Context = replace(loop.ctx, steps=1)
    replace(loop, ctx=ctx).train(Progress())
    assert len(calls) == 1
