"""`momentum_filter` against Algorithm 1 of Chen et al. 2024, written out entry by entry."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftk.running.composition import Composition
from ftk.running.loop import Progress
from ftk.running.optimizing import build_schedule
from ftk.testing import Subject, toy_context
from ftk.testing.staged import STEPS, toy_stage
from ftk.testing.staged import train as train_stage
from ftk.testing.subject import snapshot
from ftk_plugins.mitigations.largest import least_of_largest
from ftk_plugins.mitigations.momentum_filter.momentum_filter import MomentumFilter
from ftk_plugins.mitigations.momentum_filter.options import MomentumFilterOptions
from tests.core.loops import build, make_loop
from tests.plugins.mitigations.ewc_stage import OBJECTIVE, stage, task
from tests.plugins.mitigations.refusing import told_of
from tests.plugins.mitigations.test_ewc import loss_of, train

SHARE, RATE, BETA1, BETA2, EPSILON = 0.3, 0.05, 0.9, 0.99, 1e-8


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def losses(model: nn.Module, step: int) -> Tensor:
    random = torch.Generator().manual_seed(step)
    loss: Tensor = model(torch.randn(6, 5, generator=random)).square().mean()
    return loss


def algorithm_1(model: nn.Module, steps: int) -> None:
    """Each partition a parameter; in float64, with Python's own sorting."""
    first: dict[str, list[float]] = {}
    second: dict[str, list[float]] = {}
    for step in range(1, steps + 1):
        model.zero_grad()
        losses(model, step).backward()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad.flatten().tolist()
            m = [BETA1 * a + (1 - BETA1) * g for a, g in zip(first.get(name, [0.0] * len(gradient)), gradient)]  # noqa: B905
            v = [BETA2 * a + (1 - BETA2) * g * g for a, g in zip(second.get(name, [0.0] * len(gradient)), gradient)]  # noqa: B905
            first[name], second[name] = m, v
            chosen = sorted(range(len(m)), key=lambda i: -abs(m[i]))[: math.ceil(SHARE * len(m))]
            flat = parameter.data.view(-1)
            for i in chosen:
                corrected = math.sqrt(v[i] / (1 - BETA2**step)) + EPSILON
                flat[i] -= RATE * m[i] / (1 - BETA1**step) / corrected


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_it_is_algorithm_1_and_what_stays_stays_to_the_bit(decay: float) -> None:
    expected, model = net(), net()
    algorithm_1(expected, 5)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, (BETA1, BETA2), EPSILON, weight_decay=decay)
    together = Composition({"filter": MomentumFilter(MomentumFilterOptions(share=SHARE))})
    ctx = toy_context(model, None, optimizer=optimizer)
    gradients = ctx.gradients()
    for step in range(1, 6):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        losses(model, step).backward()
        together.read_gradients(gradients, ctx)
        optimizer.step()
        optimizer.zero_grad()
        together.after_step(ctx)
        for kept, parameter in zip(before, model.parameters(), strict=True):
            assert (kept != parameter).sum() == math.ceil(SHARE * kept.numel())
    if decay == 0:
        for one, other in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("share", "count"), [(0.15, 3), (0.16, 4), (0.001, 1), (1.0, 20)])
def test_the_share_is_of_a_weight_s_entries_and_at_least_one(share: float, count: int) -> None:
    values = torch.randperm(20).float().view(4, 5)
    assert int((values >= least_of_largest([[values]], share)[0]).sum()) == count


def test_the_least_of_the_largest_is_what_sorting_says_to_the_bit() -> None:
    """Of ties, of zeros, of what is not finite, of the smallest numbers there are, and of several tensors together."""
    torch.manual_seed(0)
    near = 1 + torch.arange(50) * 2.0**-23
    odd = torch.tensor([math.inf, 1.0, 1.0, -3e-45, 1e-45, -0.0, 0.0, -2.0])
    groups = [[near[torch.randperm(50)]], [odd], [torch.zeros(3)], [torch.randn(9, 4).bfloat16()]]
    groups.append([torch.randn(5, 3), torch.empty(0), torch.randn(7) * 1e-3])
    for share in (0.01, 0.2, 0.5, 0.61, 1.0):
        expected = []
        for group in groups:
            sizes = sorted((abs(value) for tensor in group for value in tensor.flatten().tolist()), reverse=True)
            expected.append(sizes[math.ceil(share * len(sizes)) - 1])
        assert [float(least) for least in least_of_largest(groups, share)] == expected
    assert least_of_largest([], 0.5) == []


def test_any_optimizer_with_a_momentum_will_do_in_the_loop() -> None:
    """And the model stays nearer to its start than without."""
    moved = {}
    for share in (0.1, 1.0):
        loop = make_loop(parts={"filter": MomentumFilter(MomentumFilterOptions(share=share))}, steps=3)
        parameters = [p for p in loop.ctx.model.parameters() if p.requires_grad]
        start = torch.cat([p.detach().flatten().clone() for p in parameters])
        loop.optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        loop.scheduler = build_schedule(loop.options, loop.optimizer, 3)
        loop.ctx = replace(loop.ctx, optimizer=loop.optimizer)
        loop.train(Progress())
        moved[share] = (torch.cat([p.detach().flatten() for p in parameters]) - start).norm()
    assert 0 < moved[0.1] < moved[1.0]


def test_in_a_stage_of_a_run_it_finds_the_optimizer_s_momentum() -> None:
    subject = Subject("mitigation", "momentum_filter", {"share": 0.05})
    stage = toy_stage(subject, subject.companions("adaptation")[0])
    start = snapshot(stage.ctx.model)
    done = train_stage(stage)
    for name, weight in done.weights.items():
        moved = int((weight != start[name]).sum())
        assert 0 < moved <= STEPS * math.ceil(0.05 * weight.numel()), name


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"adaptation": {"use": "lora"}}, "needs own-weights, which adaptation `lora` does not provide"),
        ({"training": {"optimizer": "adafactor"}}, "needs momentum, and the optimizer of this stage keeps none"),
        ({"training": {"optimizer": {"use": "sgd", "momentum": 0.0}}}, "needs momentum"),
        ({"training": {"optimizer": "muon"}}, ""),
    ],
)
def test_it_is_refused_where_it_cannot_act(changed: dict[str, Any], told: str) -> None:
    found = told_of({"use": "momentum_filter"}, changed)
    assert bool(found) == bool(told)
    assert told in found


def test_it_holds_what_plain_training_forgets() -> None:
    """The paper's point: with few entries moved, the old rows' loss rises less."""
    found = {}
    first = stage(build("adaptation", "full"))
    old, new = task("old", rows=4), task("new", first=20, rows=4)
    train(first, old, 60)
    start = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    for share in (1.0, 0.05):
        first.model.load_state_dict(start)
        optimizer = torch.optim.AdamW(first.model.parameters(), lr=5e-3)
        ctx = replace(first, optimizer=optimizer)
        together = Composition({"filter": MomentumFilter(MomentumFilterOptions(share=share))})
        batch, gradients = OBJECTIVE.collate(new.train.items), ctx.gradients()
        for _ in range(30):
            (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).backward()
            together.read_gradients(gradients, ctx)
            optimizer.step()
            optimizer.zero_grad()
            together.after_step(ctx)
        found[share] = {each.name: loss_of(ctx, each) for each in (old, new)}
    assert found[0.05]["old"] < 0.8 * found[1.0]["old"], found
    assert found[0.05]["new"] < 2.0, found
