"""EWC against its formula: the pull on the parameters, the running Fisher, and every option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftk.parts import Context, Gradients, Task
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations import pieces
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from tests.plugins.mitigations.ewc_stage import (
    OBJECTIVE,
    fisher_of,
    gpt2,
    pulled,
    remembered,
    stage,
    task,
    wander,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def lora_displacement(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """The effective weight change by PEFT's own reckoning, with its graph."""
    return {
        f"{name}.weight": module.get_delta_weight(adapter)
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


LORA = {
    "plain": (toy_model, {}),
    "rslora": (toy_model, {"rslora": True}),
    "nonzero_start": (toy_model, {"init": "pissa"}),
    "gpt2": (gpt2, {}),
    "gpt2_nonzero_start": (gpt2, {"init": "milora", "rslora": True}),
}


@pytest.mark.parametrize("chunk", [64, 1 << 18])
@pytest.mark.parametrize(("make", "options"), LORA.values(), ids=LORA)
def test_the_pull_under_lora_is_the_gradient_of_the_penalty(
    make: Callable[[], nn.Module], options: dict[str, Any], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "CPU_CHUNK_ELEMENTS", chunk)
    ctx = stage(Lora(LoraOptions(rank=4, **options)), make())
    ewc = remembered(ctx, strength=0.7)
    start = {name: delta.detach().clone() for name, delta in lora_displacement(ctx.model, "default").items()}
    wander(ctx.model)
    moved = lora_displacement(ctx.model, "default")
    penalty = sum(0.7 / 2 * (f * (moved[name] - start[name]) ** 2).sum() for name, f in fisher_of(ewc).items())
    trainable = {name: p for name, p in ctx.model.named_parameters() if p.requires_grad}
    expected = dict(zip(trainable, torch.autograd.grad(penalty, list(trainable.values())), strict=True))
    assert moved.keys() == fisher_of(ewc).keys()
    assert_near(pulled(ewc, ctx), expected)


def test_the_pull_under_full_tuning_is_the_gradient_of_the_penalty() -> None:
    ctx = stage(FullTuning(FullOptions()), gpt2())
    ewc = remembered(ctx, strength=0.7)
    start = {name: parameter.detach().clone() for name, parameter in ctx.model.named_parameters()}
    wander(ctx.model)
    expected = {
        name: 0.7 * fisher_of(ewc)[name] * (parameter.detach() - start[name])
        for name, parameter in ctx.model.named_parameters()
    }
    assert_near(pulled(ewc, ctx), expected)


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to 1e-5 of all of it: a single number carries the rounding of the gradient it was added to."""
    assert found.keys() == expected.keys()
    size = torch.cat([value.flatten() for value in expected.values()]).norm()
    error = torch.cat([(found[name] - value).flatten() for name, value in expected.items()]).norm()
    assert float(size) > 0.01
    assert float(error / size) < 1e-5


@pytest.mark.parametrize("adaptation", [Lora(LoraOptions(rank=4)), FullTuning(FullOptions())], ids=["lora", "full"])
def test_over_every_steps_each_weight_is_pulled_once_and_as_much_as_by_all_steps(adaptation: Any) -> None:
    ctx = stage(adaptation, gpt2())
    exact = remembered(ctx, strength=0.7)
    wander(ctx.model)
    whole = pulled(exact, ctx)
    parts = [pulled(again(exact, ctx, every=3), replace(ctx, step=step)) for step in range(4)]
    for name, pull in whole.items():
        torch.testing.assert_close(parts[0][name], parts[3][name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sum(part[name] for part in parts[:3]) / 3, pull, rtol=1e-4, atol=1e-5)
    apart = [torch.cat([part[name].flatten() for name in whole]) for part in parts[:3]]
    assert all(not torch.allclose(part, apart[0], atol=1e-3) for part in apart[1:])


def again(known: Ewc, ctx: Context, **options: Any) -> Ewc:
    """Another with these options and the same Fisher information."""
    ewc = Ewc(EwcOptions(strength=known.options.strength, **options))
    ewc.load_state_dict(known.state_dict())
    ewc.begin(ctx)
    return ewc


def test_no_drift_is_no_pull() -> None:
    ctx = stage(Lora(LoraOptions(rank=4, init="pissa")))
    ewc = remembered(ctx, strength=10)
    assert max(float(value.abs().max()) for value in pulled(ewc, ctx).values()) < 1e-5


def test_strength_scales_the_pull_and_zero_ends_it() -> None:
    ctx = stage()
    wander(ctx.model)
    pulls = {}
    for strength in (0.0, 0.1, 0.3):
        torch.manual_seed(1)
        pulls[strength] = pulled(remembered(ctx, strength=strength), ctx)
    for name, pull in pulls[0.1].items():
        torch.testing.assert_close(pulls[0.3][name], 3 * pull, rtol=1e-3, atol=1e-5)
        assert not pulls[0.0][name].any()
    assert EwcOptions().strength == 0.1


def test_normalised_fisher_has_mean_one_over_all_weights_and_the_raw_trace_is_reported() -> None:
    ctx = stage()
    scaled, raw = remembered(ctx), remembered(ctx, normalise=False)
    flat = {name: torch.cat([f.flatten() for f in fisher_of(e).values()]) for name, e in (("n", scaled), ("r", raw))}
    assert float(flat["n"].mean()) == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(flat["n"], flat["r"] / flat["r"].mean())
    trace = raw.report()["tasks"]["old"]["trace"]
    assert trace == pytest.approx(float(flat["r"].sum()), rel=1e-4)
    assert scaled.report()["tasks"] == raw.report()["tasks"]
    assert scaled.report()["guarded_weights"] == len(flat["n"])


@pytest.mark.parametrize(("gamma", "normalise"), [(1.0, True), (0.5, False), (0.0, True)])
def test_tasks_are_accumulated_online(gamma: float, normalise: bool) -> None:
    ctx = stage()
    first, second, third = task("a"), task("b", 6), task("c", 12)
    alone = [fisher_of(remembered(ctx, each, normalise=normalise)) for each in (first, second, third)]
    both = remembered(ctx, first, second, third, gamma=gamma, normalise=normalise)
    for name, found in fisher_of(both).items():
        expected = gamma * (gamma * alone[0][name] + alone[1][name]) + alone[2][name]
        torch.testing.assert_close(found, expected)
    assert list(both.report()["tasks"]) == ["a", "b", "c"]


def test_samples_are_counted() -> None:
    ctx = stage()
    assert remembered(ctx, samples=2).report()["tasks"]["old"]["samples"] == 2
    assert remembered(ctx).report()["tasks"]["old"]["samples"] == 6
    few, all_rows = fisher_of(remembered(ctx, samples=2)), fisher_of(remembered(ctx))
    assert any(not torch.equal(few[name], value) for name, value in all_rows.items())


def test_drawn_labels_need_an_objective_that_can_draw_and_change_the_fisher() -> None:
    assert EwcOptions(labels="sample").more_needs() == ("earlier-target-sampling",)
    assert EwcOptions(labels="exact").more_needs() == ("earlier-target-listing",)
    assert EwcOptions().more_needs() == ()
    ctx = stage()
    own, drawn, again = (fisher_of(remembered(ctx, labels=labels)) for labels in ("empirical", "sample", "sample"))
    for name, value in own.items():
        assert torch.equal(drawn[name], again[name])
        assert not torch.allclose(drawn[name], value, rtol=0.01)


def test_the_batch_size_decides_how_many_rows_pass_at_once() -> None:
    ctx, rows = stage(), []
    ctx.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    remembered(ctx, fisher_batch_size=3)
    remembered(ctx)
    check = [2, 1, 1]  # two rows are done both ways first
    assert rows == [*check, 3, 3, *check, 4, 2]


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"samples": 0}, {"gamma": 1.1}, {"labels": "own"}, {"lambda": 1}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EwcOptions(**wrong)


def test_the_pull_holds_what_plain_training_forgets() -> None:
    """The point of it all: learning the new rows raises the old rows' loss less with EWC than without."""
    losses = {}
    for strength in (0.0, 0.3):
        ctx = stage(FullTuning(FullOptions()))
        old, new = task("old", rows=4), task("new", first=20, rows=4)
        train(ctx, old, 60)
        ctx = stage(FullTuning(FullOptions()), ctx.adaptation.merge())
        ewc = remembered(ctx, old, strength=strength)
        train(ctx, new, 30, ewc)
        losses[strength] = {each.name: loss_of(ctx, each) for each in (old, new)}
    assert losses[0.3]["old"] < 0.7 * losses[0.0]["old"]
    assert losses[0.3]["new"] < 1.5


def train(ctx: Context, task: Task, steps: int, ewc: Ewc | None = None) -> None:
    optimizer = torch.optim.AdamW([p for p in ctx.model.parameters() if p.requires_grad], lr=5e-3)
    batch = OBJECTIVE.collate(task.train.items)
    for _ in range(steps):
        optimizer.zero_grad()
        (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).backward()
        if ewc:
            with torch.no_grad():
                ewc.edit_gradients(Gradients(ctx.model), ctx)
        optimizer.step()


@torch.no_grad()
def loss_of(ctx: Context, task: Task) -> float:
    batch = OBJECTIVE.collate(task.train.items)
    return float(OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count)
