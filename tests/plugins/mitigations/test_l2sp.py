"""`l2sp` against its formula by autograd, to either anchor, with weights that are new."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Context, Gradients, Head
from ftk.testing import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.l2sp.l2sp import L2sp
from ftk_plugins.mitigations.l2sp.options import L2spOptions
from tests.core.loops import build
from tests.plugins.mitigations.ewc_stage import gpt2, stage, task, wander
from tests.plugins.mitigations.test_ewc import loss_of, train

NEW = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def whole() -> FullTuning:
    return FullTuning(FullOptions())


def low_rank() -> Lora:
    return Lora(LoraOptions(rank=4, init="pissa"))


def effective(model: nn.Module) -> dict[str, Tensor]:
    """The weights with which the model computes, by plain names and with a graph."""
    found = {}
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            found[name.replace(".base_layer.", ".")] = parameter
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            deltas = [module.get_delta_weight(adapter) for adapter in module.active_adapters]
            found[f"{name}.weight"] = module.get_base_layer().weight + sum(deltas)
    return found


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in effective(model).items()}


def begun(ctx: Context, **options: Any) -> L2sp:
    part = L2sp(L2spOptions(**options))
    part.begin(ctx)
    return part


def pulled(part: L2sp, ctx: Context) -> dict[str, Tensor]:
    gradients = Gradients(ctx.model)
    before = {name: gradients[name].fill_(0.5).clone() for name in gradients}
    with torch.no_grad():
        part.edit_gradients(gradients, ctx)
    return {name: gradients[name] - before[name] for name in before}


def derived(penalty: Tensor, model: nn.Module) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(penalty, list(trained.values()), allow_unused=True)
    return {
        name: torch.zeros_like(trained[name]) if its is None else its for name, its in zip(trained, found, strict=True)
    }


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert any(value.any() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("adaptation", [whole, low_rank])
def test_it_is_the_gradient_of_the_paper_s_penalty(adaptation: Any) -> None:
    model = toy_model()
    model.fresh_weights = (NEW,)
    ctx = stage(adaptation(), model)
    start, part = copied(ctx.model), begun(ctx, strength=0.7, new_strength=0.3)
    wander(ctx.model)
    now = effective(ctx.model)
    moved = ctx.adaptation.drift().keys()
    known = sum((now[name] - start[name]).square().sum() for name in moved if name != NEW)
    penalty = 0.7 / 2 * known + 0.3 / 2 * now[NEW].square().sum()
    assert_near(pulled(part, ctx), derived(penalty, ctx.model))
    assert part.report() == {
        "guarded_weights": sum(now[name].numel() for name in moved if name != NEW), "new_weights": now[NEW].numel(),
    }  # fmt: skip
    part.knob.value = 0.0
    assert_near(pulled(part, ctx), derived(0.3 / 2 * effective(ctx.model)[NEW].square().sum(), ctx.model))


@pytest.mark.parametrize("adaptation", [whole, low_rank])
def test_the_run_s_start_is_the_anchor_of_later_stages_too(adaptation: Any) -> None:
    """Also where a stage resumes, and where the first trained other weights than the second."""
    model = toy_model()
    model.fresh_weights = (NEW,)
    beginning = copied(model)
    first = stage(FullTuning(FullOptions(freeze=("*.1.*",))), model)
    part = begun(first, anchor="run", strength=0.7, new_strength=0.3)
    wander(first.model)
    ctx = stage(adaptation(), first.adaptation.merge(), stage=2, earlier=[task()])
    second = L2sp(L2spOptions(anchor="run", strength=0.7, new_strength=0.3))
    second.load_state_dict(part.state_dict())
    second.begin(ctx)
    wander(ctx.model)
    resumed = L2sp(second.options)
    resumed.load_state_dict(second.state_dict())
    resumed.begin(ctx)
    now, moved = effective(ctx.model), ctx.adaptation.drift().keys()
    known = sum((now[name] - beginning[name]).square().sum() for name in moved if name != NEW)
    penalty = 0.7 / 2 * known + 0.3 / 2 * now[NEW].square().sum()
    found = pulled(second, ctx)
    assert_near(found, derived(penalty, ctx.model))
    again = pulled(resumed, ctx)
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_what_was_new_has_a_start_in_the_next_stage() -> None:
    model = toy_model()
    model.fresh_weights = (NEW,)
    ctx = stage(whole(), model)
    assert begun(ctx).report()["new_weights"] > 0
    assert begun(replace(ctx, earlier=[replace(task(), name="retain")])).report()["new_weights"] > 0
    assert begun(replace(ctx, earlier=[task()])).report()["new_weights"] == 0


def test_a_stage_in_which_nothing_has_a_start_is_warned_of() -> None:
    events: list[Any] = []
    model = toy_model()
    model.fresh_weights = tuple(name for name, _ in model.named_parameters())
    begun(stage(whole(), model, events=events))
    begun(stage(whole(), events=events))
    assert [event.data["text"] for event in events if event.kind == "warning"] == [
        "l2sp: no weight that stage `toy` trains has a start, so all are pulled to zero"
    ]


def test_every_k_th_step_pulls_k_times_as_much() -> None:
    ctx = stage(whole(), gpt2())
    exact, sparse = begun(ctx, strength=0.7), begun(ctx, strength=0.7, every=3)
    wander(ctx.model)
    parts = [pulled(sparse, replace(ctx, step=step)) for step in range(3)]
    for name, pull in pulled(exact, ctx).items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 3, pull, rtol=1e-4, atol=1e-5)


def test_the_run_s_start_must_be_known_and_readable() -> None:
    with pytest.raises(UserError, match=r'anchor = "run" needs the run\'s start, and stage `toy` is the first'):
        begun(stage(whole(), stage=2), anchor="run")
    begun(stage(whole(), stage=2), anchor="stage")


def test_it_holds_what_plain_training_forgets() -> None:
    losses = {}
    start = None
    for strength in (0.0, 0.1):
        torch.manual_seed(0)
        old, new = task("old", rows=4), task("new", first=20, rows=4)
        if start is None:
            ctx = stage(whole())
            train(ctx, old, 60)
            start = {name: tensor.clone() for name, tensor in ctx.adaptation.merge().state_dict().items()}
        model = toy_model()
        model.load_state_dict(start)
        ctx = stage(whole(), model)
        train(ctx, new, 30, begun(ctx, strength=strength))
        losses[strength] = {each.name: loss_of(ctx, each) for each in (old, new)}
    assert losses[0.1]["old"] < 0.8 * losses[0.0]["old"], losses
    assert losses[0.1]["new"] < 2.0, losses


def test_model_sources_tell_what_they_drew() -> None:
    source = build("model", "scratch", hidden_size=32, layers=1, heads=2, vocabulary_size=300)
    model = source.load(Head("causal_lm"), lambda: iter(["a b c"])).model
    assert set(model.fresh_weights) == {name for name, _ in model.named_parameters()}
