"""Adaptations that change what is trained from step to step, and gradients that are given by source."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftk.data.batches import Batches, by_source
from ftk.parts import Context, Gradients, Mitigation, Source
from ftk.running.loop import Loop, Progress
from ftk.running.optimizing import pack_optimizer
from ftk.testing import toy_task
from ftk_plugins.adaptations.full.full import FullTuning
from tests.core.loops import build, make_loop, rows, weights
from tests.mixers import mixer_of

NORM = "model.norm.weight"


class Thawing(FullTuning):
    """Trains the last norm alone for two steps, and then everything."""

    def attach(self, model: Any) -> nn.Module:
        attached = super().attach(model)
        self.train_only(attached, (NORM,))
        return attached

    def train_only(self, model: nn.Module, names: tuple[str, ...]) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not names or name in names)

    def before_step(self, ctx: Context) -> bool:
        before = [parameter.requires_grad for parameter in ctx.model.parameters()]
        self.train_only(ctx.model, (NORM,) if ctx.step < 2 else ())
        return before != [parameter.requires_grad for parameter in ctx.model.parameters()]


def thawing(steps: int = 4, **options: Any) -> Loop:
    loop = make_loop(steps=steps, warmup=0, **options)
    part = Thawing(build("adaptation", "full").options)
    model = part.attach(loop.ctx.model)
    optimizer = torch.optim.AdamW(part.param_groups(model, 1e-3), weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return replace(loop, ctx=replace(loop.ctx, adaptation=part), optimizer=optimizer, scheduler=scheduler)


def test_what_is_frozen_for_now_does_not_move_and_its_optimizer_begins_when_it_is_thawed():
    loop, prepared = thawing(), []
    loop.prepare = lambda model: prepared.append(model) or model
    frozen: list[dict[str, torch.Tensor]] = []

    class Watch(Mitigation):
        def after_step(self, ctx: Context) -> None:
            frozen.append({name: p.detach().clone() for name, p in ctx.model.named_parameters()})

    loop.mitigations = type(loop.mitigations)({"watch": Watch()})
    start = {name: p.detach().clone() for name, p in loop.ctx.model.named_parameters()}
    loop.train(Progress())
    for name, weight in start.items():
        moved = [not torch.equal(step[name], weight) for step in frozen]
        assert moved == ([True] * 4 if name == NORM else [False, False, True, True]), name
    assert prepared == [loop.ctx.model], "once, when the set changed"
    names = {id(parameter): name for name, parameter in loop.ctx.model.named_parameters()}
    steps = {key: int(value) for key, value in pack_optimizer(loop.optimizer, names).items() if key.endswith("/step")}
    assert steps.pop(f"{NORM}/step") == 4
    assert set(steps.values()) == {2}


def test_a_step_whose_thawing_came_at_once_is_that_of_full_tuning():
    late, full = thawing(1), make_loop(steps=1, warmup=0)
    late.ctx = replace(late.ctx, steps=1)
    late.ctx.adaptation.before_step = lambda ctx: Thawing.before_step(late.ctx.adaptation, replace(ctx, step=9))
    full = replace(
        full,
        optimizer=torch.optim.AdamW(full.ctx.adaptation.param_groups(full.ctx.model, 1e-3), weight_decay=0.1),
    )
    full.scheduler = torch.optim.lr_scheduler.LambdaLR(full.optimizer, lambda step: 1.0)
    late.train(Progress())
    full.train(Progress())
    assert torch.equal(weights(late), weights(full))


class Asks(Mitigation):
    """Keeps the gradients by source of the last step, and the step's own."""

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        self.apart = {source: dict(given) for source, given in gradients.by_source.items()}
        self.whole = {name: gradient.clone() for name, gradient in gradients.items()}


def with_memory(asks: Mitigation, by_source: bool = True, **options: Any) -> Loop:
    """A loop whose steps hold rows of a second source; of its own rows the objective tells two members apart."""
    loop = make_loop(parts={"asks": asks}, steps=1, max_grad_norm=0, **options)
    objective, other = (build("objective", "causal_lm", packing=False, max_length=64) for _ in range(2))
    objective.member = lambda item: "even" if len(item["input_ids"]) % 2 == 0 else "odd"
    memory = Source("replay/earlier", toy_task(rows(9)[::-1], other).train.items, 0.4, other)
    mixer = mixer_of(toy_task(rows(40), objective).train.items, objective, [memory], 0)
    return replace(loop, batches=Batches(mixer, loop.options), by_source=by_source)


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 2}, {"precision": "fp16"}], ids=str)
def test_the_gradients_of_the_sources_are_autograds_and_sum_to_the_steps(options):
    asks = Asks()
    loop = with_memory(asks, **options)
    loop.ctx = replace(loop.ctx, precision=loop.options.precision)
    sources = by_source(loop.batches.rows(0))
    assert set(sources) == {"train/even", "train/odd", "replay/earlier"}
    model = loop.ctx.model
    count = sum(source.objective.collate([item]).count for its in sources.values() for source, item in its)
    expected = {}
    for name, its in sources.items():
        objective = its[0][0].objective
        losses = [objective.loss(model, objective.collate([item]), loop.ctx).total / count for _, item in its]
        found = torch.autograd.grad(sum(losses), list(model.parameters()))
        expected[name] = dict(zip([name for name, _ in model.named_parameters()], found, strict=True))
    loop.train(Progress())
    close = {"atol": 2e-4, "rtol": 2e-2} if options.get("precision") else {"atol": 1e-6, "rtol": 1e-4}
    assert set(asks.apart) == set(expected)
    for name, whole in asks.whole.items():
        for source, gradients in expected.items():
            torch.testing.assert_close(asks.apart[source][name], gradients[name], **close)
        torch.testing.assert_close(sum(its[name] for its in asks.apart.values()), whole, atol=1e-6, rtol=1e-4)


def test_who_does_not_ask_gets_none_and_takes_the_same_step():
    class Silent(Mitigation):
        def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
            with pytest.raises(TypeError, match="source-gradients"):
                _ = gradients.by_source
            self.whole = {name: gradient.clone() for name, gradient in gradients.items()}

    asks, silent = Asks(), Silent()
    with_memory(asks).train(Progress())
    with_memory(silent, by_source=False).train(Progress())
    for name, whole in silent.whole.items():
        torch.testing.assert_close(asks.whole[name], whole, atol=1e-6, rtol=1e-4)


def test_the_projection_of_the_docs_leaves_no_conflict_with_the_old_rows():
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")
    (listing,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Project" in block]
    found: dict[str, Any] = {}
    exec(listing, found)
    torch.manual_seed(0)
    net = nn.Linear(6, 5)
    gradients = Gradients(net)
    for source in ("train", "replay/earlier"):
        net(torch.randn(3, 6)).square().sum().backward()
        for parameter in net.parameters():
            parameter.grad *= 1 if source == "train" else torch.randn(())
        gradients.set_aside(source)
    gradients.by_source["replay/earlier"]["bias"].copy_(-gradients.by_source["train"]["bias"])
    gradients.join()
    before = {name: gradient.clone() for name, gradient in gradients.items()}
    found["Project"]().edit_gradients(gradients, None)
    for name, gradient in gradients.items():
        own, old = (gradients.by_source[source][name] for source in ("train", "replay/earlier"))
        inner = (own * old).sum()
        expected = before[name] - (inner / old.square().sum() * old if inner < 0 else 0)
        torch.testing.assert_close(gradient, expected)
        assert ((gradient - old) * old).sum() >= -1e-5
    assert not torch.equal(before["bias"], gradients["bias"])


def test_what_no_source_reached_has_zeros_and_is_not_stepped():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    gradients = Gradients(net)
    net[0](torch.ones(1, 2)).sum().backward()
    gradients.set_aside("one")
    gradients.set_aside("other")
    gradients.join(scale=2.0)
    assert net[1].weight.grad is None
    assert not gradients.by_source["one"]["1.weight"].any()
    assert torch.equal(gradients.by_source["one"]["0.bias"], torch.full((2,), 0.5))
    assert torch.equal(net[0].bias.grad, torch.ones(2)), "the step's is unscaled by the optimizer's scaler"
    assert not gradients.by_source["other"]["0.bias"].any()
    net[0].bias.grad.fill_(7)
    assert torch.equal(gradients.by_source["one"]["0.bias"], torch.full((2,), 0.5)), "an edit does not reach it"
