"""The strength that EWC finds by itself: the controller on a plant of known form, and the rises on a toy model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ftk.parts import Context, Gradients, Task
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc import measured
from ftk_plugins.mitigations.ewc.allowance import CALIBRATED, PERIOD, Allowance
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.measured import Probe
from ftk_plugins.mitigations.ewc.options import EwcOptions
from tests.plugins.mitigations.ewc_stage import OBJECTIVE, stage, task, wander


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("allowed", "scale"), [(0.3, 1.0), (0.05, 1.0), (0.05, 0.2), (0.3, 10.0), (0.01, 0.015)])
def test_the_multiplier_of_a_quadratic_plant_is_found(allowed: float, scale: float) -> None:
    """Of (x - 1)² with a rise of ``scale``·q, q = x²/2: at the limit λ is 2(1 - x)/x; where it does not bind, none."""
    held, x, steps = Allowance(allowed, 0.1), 0.0, 400
    held.begin(1, {"old": 2.0}, {"old": 2.0})
    for step in range(steps):
        form = x**2 / 2
        if step % PERIOD == 0:
            if step % CALIBRATED == 0:
                held.calibrate(form, {"old": 2.0 + scale * form})
            held.turn(form, step, steps)
        x -= 0.05 * (2 * (x - 1) + held.strength * x)
    limit = math.sqrt(2 * allowed / scale)
    if limit < 1:
        assert 0.7 * allowed < scale * x**2 / 2 < 1.1 * allowed
        assert held.strength == pytest.approx(2 * (1 - limit) / limit, rel=0.35)
    else:
        assert x > 0.98
        assert held.strength < 0.05


def test_estimates_and_measurements_are_in_nats_for_each_target() -> None:
    ctx, old = stage(Lora(LoraOptions(rank=4))), task("old", rows=5)
    ctx = replace(ctx, earlier=[old], steps=10)
    ewc = Ewc(EwcOptions(allowed_loss=0.05, samples=5))
    ewc.remember(old, ctx)
    ewc.begin(ctx)
    before = nats(ctx, old)
    train(ctx, task("new", first=20, rows=4), 21, ewc)
    ctx.adaptation.scale(0.0)  # nothing has risen
    ewc.finish(ctx)
    told = json.loads(json.dumps(ewc.report()))
    assert told["rises"]["old"]["measured"] == pytest.approx(0, abs=1e-5)
    ctx.adaptation.scale(1.0)
    ewc.finish(ctx)
    rise, told = nats(ctx, old) - before, ewc.report()
    kept = told["rises"]["old"].get("kept", told["rises"]["old"]["measured"])
    assert kept == pytest.approx(rise, abs=1e-5)
    assert rise <= 0.05
    assert [point["step"] for point in told["course"]] == list(range(0, 21, PERIOD))
    assert told["course"][-1]["strength"] == told["strength"] == ewc.strength()


def test_a_stage_that_ends_above_keeps_the_share_of_its_drift_that_is_allowed() -> None:
    ctx, old = stage(Lora(LoraOptions(rank=4))), task("old", rows=5)
    ctx = replace(ctx, earlier=[old], steps=30)
    ewc = Ewc(EwcOptions(allowed_loss=0.01, samples=5))
    ewc.remember(old, ctx)
    ewc.begin(ctx)
    before = nats(ctx, old)
    for _ in range(20):
        wander(ctx.model)  # and nobody pulls
    assert nats(ctx, old) - before > 0.02
    ewc.finish(ctx)
    rise, told = nats(ctx, old) - before, ewc.report()
    assert 0.009 < rise <= 0.01
    assert 0 < told["kept_share"] < 1
    assert told["rises"]["old"]["kept"] == pytest.approx(rise, abs=1e-5)


def test_it_resumes_bit_for_bit() -> None:
    ends = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        ctx, old, new = stage(Lora(LoraOptions(rank=4))), task("old", rows=5), task("new", first=20, rows=4)
        ctx = replace(ctx, earlier=[old], steps=40)
        options = EwcOptions(allowed_loss=0.001, samples=5)
        ewc = Ewc(options)
        ewc.remember(old, ctx)
        ewc.begin(ctx)
        optimizer = torch.optim.AdamW([p for p in ctx.model.parameters() if p.requires_grad], lr=5e-3)
        train(ctx, new, 23, ewc, optimizer)
        if interrupted:
            state = ewc.state_dict()
            ewc = Ewc(options)
            ewc.load_state_dict({k: v if torch.is_tensor(v) else json.loads(json.dumps(v)) for k, v in state.items()})
            ewc.begin(ctx)
        train(ctx, new, 40, ewc, optimizer, first=23)
        ewc.finish(ctx)
        ends.append((ewc.report(), [p.detach().clone() for p in ctx.model.parameters()]))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(one, other) for one, other in zip(ends[0][1], ends[1][1], strict=True))
    assert len({point["strength"] for point in ends[0][0]["course"]}) > 3


def test_it_goes_without_a_strength_and_without_a_knob() -> None:
    with pytest.raises(ValueError, match="leave out `strength`"):
        EwcOptions(allowed_loss=0.1, strength=0.2)
    options = EwcOptions(allowed_loss=0.1)
    assert "strength-knob" in options.withheld()
    assert Ewc(options).knob is None
    assert "weight-scale" in options.more_needs()
    assert "strength-knob" not in EwcOptions().withheld()


def train(ctx: Context, new: Task, end: int, ewc: Any = None, optimizer: Any = None, first: int = 0) -> None:
    optimizer = optimizer or torch.optim.AdamW([p for p in ctx.model.parameters() if p.requires_grad], lr=5e-3)
    batch = OBJECTIVE.collate(new.train.items)
    for step in range(first, end):
        optimizer.zero_grad()
        (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).backward()
        if ewc:
            with torch.no_grad():
                ewc.edit_gradients(Gradients(ctx.model), replace(ctx, step=step))
        optimizer.step()


@torch.no_grad()
def nats(ctx: Context, old: Task) -> float:
    """The mean over all targets of all rows, one row at a time."""
    ctx.model.eval()
    losses = []
    for item in old.train.items:
        ids = torch.as_tensor(item["input_ids"].astype("int64"))[None]
        losses.append(F.cross_entropy(ctx.model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("world_size", [1, 2])
def test_among_several_processes_no_trained_weight_changes_its_type(
    world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hears of a gradient hangs on the node that accumulates it, which a change of type replaces."""
    model = toy_model().bfloat16()
    ctx, old = stage(FullTuning(FullOptions()), model), task("old", rows=4)
    probe = Probe(old, ctx, 4, 2, 1)
    weight = next(iter(ctx.gradients().parameters().values()))
    accumulates = weight.expand_as(weight).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
    monkeypatch.setattr(measured, "add_up", lambda numbers, ctx: list(numbers))
    monkeypatch.setattr(measured, "batches_of_process", lambda lengths, size, ctx: [([0, 1], True), ([2, 3], True)])
    found = probe.loss(replace(ctx, world_size=world_size))
    same = weight.expand_as(weight).grad_fn.next_functions[0][0] is accumulates  # type: ignore[union-attr]
    assert same == (world_size > 1)
    assert found == pytest.approx(nats(ctx, old), rel=2e-2)
