"""EWC against its formula: the pull on the parameters, the running Fisher, its state and every option."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from ftk import RunFailed, UserError
from ftk.context import Context
from ftk.examples import Task
from ftk.gradients import Gradients
from ftk.parts import Adaptation
from ftk.testing.toys import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc import ewc as ewc_module
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

OBJECTIVE = CausalLM(CausalLMOptions())


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "vocab_size": 260}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=1)).eval()


def task(name: str = "old", first: int = 0, rows: int = 6) -> Task:
    return toy_task(list(toy_rows(first + rows))[first:], OBJECTIVE, name)


def stage(adaptation: Adaptation | None = None, model: nn.Module | None = None, **changes: Any) -> Context:
    """A stage's context: a fresh toy model with the adaptation attached."""
    adaptation = adaptation or Lora(LoraOptions(rank=4))
    model = adaptation.attach(model or toy_model())
    return toy_context(model, OBJECTIVE, adaptation, **changes)


def remembered(ctx: Context, *tasks: Task, **options: Any) -> Ewc:
    ewc = Ewc(EwcOptions(**options))
    for each in tasks or [task()]:
        ewc.remember(each, ctx)
    ewc.begin(ctx)
    return ewc


def fisher_of(ewc: Ewc) -> dict[str, Tensor]:
    prefix = "fisher/"
    return {
        key.removeprefix(prefix): value for key, value in ewc.state_dict().items() if key.startswith(prefix)
    }


def wander(model: nn.Module) -> None:
    """Move every trainable parameter, as training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))


def pulled(ewc: Ewc, ctx: Context) -> dict[str, Tensor]:
    """What the step adds to the gradients, which are not zero before."""
    gradients = Gradients(ctx.model)
    before = {name: torch.randn_like(parameter) for name, parameter in gradients.parameters().items()}
    for name, gradient in before.items():
        gradients[name].copy_(gradient)
    with torch.no_grad():
        ewc.edit_gradients(gradients, ctx)
    return {name: gradients[name].detach() - before[name] for name in before}


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
    monkeypatch.setattr(ewc_module, "CPU_CHUNK_ELEMENTS", chunk)
    ctx = stage(Lora(LoraOptions(rank=4, **options)), make())
    ewc = remembered(ctx, strength=0.7)
    start = {name: delta.detach().clone() for name, delta in lora_displacement(ctx.model, "default").items()}
    wander(ctx.model)
    moved = lora_displacement(ctx.model, "default")
    penalty = sum(
        0.7 / 2 * (f * (moved[name] - start[name]) ** 2).sum() for name, f in fisher_of(ewc).items()
    )
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
    flat = {
        name: torch.cat([f.flatten() for f in fisher_of(e).values()])
        for name, e in (("n", scaled), ("r", raw))
    }
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
    assert EwcOptions(labels="sample").more_needs() == ("target-sampling",)
    assert EwcOptions().more_needs() == ()
    ctx = stage()
    own, drawn, again = (
        fisher_of(remembered(ctx, labels=labels)) for labels in ("empirical", "sample", "sample")
    )
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


def test_state_goes_through_files_exactly(tmp_path: Path) -> None:
    ctx = stage()
    ewc = remembered(ctx, task("a"), task("b", 6))
    state = ewc.state_dict()
    save_file(
        {key: value for key, value in state.items() if isinstance(value, Tensor)}, tmp_path / "s.safetensors"
    )
    values = json.loads(
        json.dumps({key: value for key, value in state.items() if not isinstance(value, Tensor)})
    )
    back = Ewc(EwcOptions())
    back.load_state_dict({**load_file(tmp_path / "s.safetensors"), **values})
    back.begin(ctx)
    wander(ctx.model)
    torch.manual_seed(1)
    first = pulled(ewc, ctx)
    torch.manual_seed(1)
    second = pulled(back, ctx)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert back.report() == ewc.report()
    for each in (ewc, back):
        each.remember(task("c", 12), ctx)
    assert all(torch.equal(value, fisher_of(ewc)[name]) for name, value in fisher_of(back).items())


def test_steps_leave_the_state_untouched_so_that_checkpoints_can_link_it() -> None:
    ctx = stage()
    ewc = remembered(ctx)
    before = {name: (id(value), value._version) for name, value in fisher_of(ewc).items()}
    wander(ctx.model)
    pulled(ewc, ctx)
    assert {name: (id(value), value._version) for name, value in fisher_of(ewc).items()} == before


def test_a_strange_state_is_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        Ewc(EwcOptions()).load_state_dict({"rows": [1]})


def test_weights_that_the_stage_does_not_train_are_kept_for_later_stages() -> None:
    wide = remembered(stage())
    narrow_ctx = stage(Lora(LoraOptions(rank=4, targets=("q_proj",))))
    narrow = Ewc(EwcOptions())
    narrow.load_state_dict(wide.state_dict())
    narrow.begin(narrow_ctx)
    pulled(narrow, narrow_ctx)
    assert fisher_of(narrow).keys() == fisher_of(wide).keys()
    assert 0 < narrow.report()["guarded_weights"] < wide.report()["guarded_weights"]


def test_a_stage_that_trains_nothing_remembered_is_warned_of() -> None:
    first = remembered(stage(Lora(LoraOptions(rank=4, targets=("q_proj",)))))
    events: list[Any] = []
    ctx = stage(Lora(LoraOptions(rank=4, targets=("v_proj",))), events=events)
    ewc = Ewc(EwcOptions())
    ewc.load_state_dict(first.state_dict())
    ewc.begin(ctx)
    assert ["none of the weights" in event.data["text"] for event in events] == [True]


def test_a_first_stage_has_nothing_to_guard() -> None:
    ctx = stage()
    ewc = Ewc(EwcOptions(strength=100))
    ewc.begin(ctx)
    wander(ctx.model)
    assert not any(value.any() for value in pulled(ewc, ctx).values())
    assert ewc.report() == {"tasks": {}, "guarded_weights": 0}


def test_a_weight_that_changed_its_shape_is_named() -> None:
    ewc = remembered(stage())
    wider = stage(model=toy_model(intermediate_size=48))
    with pytest.raises(RunFailed, match=r"layers.0.mlp.gate_proj.weight was remembered in shape \(64, 32\)"):
        ewc.begin(wider)


def test_a_task_without_rows_is_refused() -> None:
    empty = replace(task(), train=task().train.subset([]))
    with pytest.raises(UserError, match="nothing tells what `old` depends on"):
        remembered(stage(), empty)


@pytest.mark.parametrize(
    "wrong", [{"strength": -1}, {"samples": 0}, {"gamma": 1.1}, {"labels": "own"}, {"lambda": 1}]
)
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
