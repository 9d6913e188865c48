"""AdaLoRA: the same steps as PEFT's own loop, the paper's budget, its penalty's gradient, its state, its export."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Context, Gradients
from ftk.testing import toy_model
from ftk.testing.toys import toy_context
from ftk_plugins.adaptations.adalora.options import AdaLoraOptions
from tests.plugins.adaptations.effective import MODELS, TOKENS, attached, merged_by_peft, shake, weights_of

STEPS = 12
OPTIONS: dict[str, Any] = {"rank": 2, "start_rank": 4, "first_share": 0.2, "last_share": 0.4, "every": 2}
LABELS = TOKENS.flip(1)


def loss_of(model: Any) -> Tensor:
    return nn.functional.cross_entropy(model(TOKENS).logits.flatten(0, 1), LABELS.flatten())


def context(adaptation: Any, model: Any, step: int) -> Context:
    return toy_context(model, None, adaptation=adaptation, step=step, steps=STEPS)


def take_step(adaptation: Any, model: Any, optimizer: Any, step: int) -> None:
    """A step in the order of the loop of a stage."""
    ctx = context(adaptation, model, step)
    adaptation.before_step(ctx)
    loss_of(model).backward()
    adaptation.edit_gradients(Gradients(model), ctx)
    optimizer.step()
    adaptation.after_step(ctx)
    optimizer.zero_grad()


def optimizer_of(adaptation: Any, model: Any) -> Any:
    return torch.optim.AdamW(adaptation.param_groups(model, 1e-2), weight_decay=0.0)


def ranks_of(model: nn.Module) -> dict[str, int]:
    return {n: int((p != 0).sum()) for n, p in model.named_parameters() if ".lora_E." in n}


def trained(steps: int = STEPS) -> tuple[Any, Any]:
    adaptation, model = attached("adalora", toy_model(), **OPTIONS)
    optimizer = optimizer_of(adaptation, model)
    for step in range(steps):
        take_step(adaptation, model, optimizer, step)
    return adaptation, model


def test_its_steps_are_those_of_pefts_own_loop() -> None:
    adaptation, model = attached("adalora", toy_model(), **OPTIONS)
    torch.manual_seed(7)
    config = AdaLoraConfig(
        task_type="CAUSAL_LM", init_r=4, target_r=2, lora_alpha=32, tinit=int(0.2 * STEPS), tfinal=int(0.4 * STEPS),
        deltaT=2, total_step=STEPS, target_modules=sorted(adaptation._layers), orth_reg_weight=0.5,
    )  # fmt: skip
    theirs = get_peft_model(toy_model(), config)
    other = dict(theirs.base_model.model.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, other[name])
    first, second = optimizer_of(adaptation, model), torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0)
    seen = []
    for step in range(STEPS):
        take_step(adaptation, model, first, step)
        theirs.train()  # without dropout it changes nothing
        outputs = theirs(input_ids=TOKENS, labels=TOKENS)  # it adds its penalty to the loss of a pass with labels
        penalty = outputs.loss - theirs.base_model.model(input_ids=TOKENS, labels=TOKENS).loss
        (loss_of(theirs) + penalty).backward()
        second.step()
        theirs.base_model.update_and_allocate(step + 1)
        second.zero_grad()
        assert ranks_of(model) == ranks_of(theirs.base_model.model), f"after step {step + 1}"
        seen.append(sum(ranks_of(model).values()))
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, other[name], atol=2e-4, rtol=1e-3)
    layers = len(adaptation._layers)
    assert len(set(ranks_of(model).values())) > 1, "ranks have moved between layers"
    # 2 steps with all, a cubic fall over the 6 after that (equation 12 of the paper), shared out at the even ones
    tinit, end = int(0.2 * STEPS), STEPS - int(0.4 * STEPS)
    for step in range(1, STEPS + 1):
        if step > tinit and step % 2 == 0 and step < end:
            left = int((4 - 2) * layers * (1 - (step - tinit) / (end - tinit)) ** 3 + 2 * layers)
            assert seen[step - 1] == left
        elif step >= end:
            assert seen[step - 1] == 2 * layers, "the budget is what was asked"


def test_the_penaltys_gradient_is_autograds() -> None:
    adaptation, model = attached("adalora", MODELS["gpt2"](), **OPTIONS, orthogonality=0.3)
    shake(model)
    parts = {n: p for n, p in model.named_parameters() if ".lora_A." in n or ".lora_B." in n}
    total = torch.zeros((), dtype=torch.float64)
    wide = {name: parameter.detach().double().requires_grad_() for name, parameter in parts.items()}
    for name, parameter in wide.items():
        product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
        total = total + (product - torch.eye(4)).square().sum().sqrt()
    (0.3 * total / len(parts)).backward()
    for parameter in parts.values():
        parameter.grad = torch.ones_like(parameter)
    adaptation.edit_gradients(Gradients(model), context(adaptation, model, 0))
    for name, parameter in parts.items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad - 1, wide[name].grad.float(), atol=1e-6, rtol=1e-4)
    plain, model = attached("adalora", toy_model(), **OPTIONS, orthogonality=0.0)
    plain.edit_gradients(Gradients(model), context(plain, model, 0))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_drift_is_what_peft_would_merge_and_its_chain_rule_is_autograds(kind: str) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached("adalora", copy.deepcopy(plain), **OPTIONS)
    shake(model)
    merged = merged_by_peft(model)
    for name, rows in weights_of(adaptation).items():
        torch.testing.assert_close(rows, merged[name] - plain.get_parameter(name), atol=2e-6, rtol=0)
    name, drift = next(iter(adaptation.drift().items()))
    layer = model.get_submodule(name.removesuffix(".weight"))
    parts = [layer.lora_A["default"], layer.lora_E["default"], layer.lora_B["default"]]
    slopes = torch.randn(drift.shape)
    delta = layer.get_delta_weight("default")
    expected = torch.autograd.grad((delta * slopes)[3:20].sum(), parts)
    drift.pull_back(3, 8, slopes[3:8])
    drift.pull_back(8, 20, slopes[8:20])
    for part, wanted in zip(parts, expected, strict=True):
        torch.testing.assert_close(part.grad, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_stopped_and_resumed_it_shares_out_the_same_ranks(stop: int) -> None:
    whole, model = trained()
    begun, first = attached("adalora", toy_model(), **OPTIONS)
    optimizer = optimizer_of(begun, first)
    for step in range(stop):
        take_step(begun, first, optimizer, step)
    saved = {name: tensor.clone() for name, tensor in begun.state_dict().items()}
    again, second = attached("adalora", toy_model(), **OPTIONS)
    again.load_state_dict(saved)
    other = optimizer_of(again, second)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(stop, STEPS):
        take_step(again, second, other, step)
    ended = whole.state_dict()
    assert ended.keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, ended[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(second(TOKENS).logits, model(TOKENS).logits)
    del saved[next(name for name in saved if name.startswith("sensitivity/"))]
    with pytest.raises(ValueError, match="missing: sensitivity/"):
        again.load_state_dict(saved)


@pytest.mark.parametrize("steps", [2, STEPS])
def test_the_export_holds_the_ranks_that_are_left(steps: int, tmp_path: Path) -> None:
    adaptation, model = trained(steps)
    logits, left = model(TOKENS).logits, ranks_of(model)
    adaptation.export(tmp_path)
    loaded = PeftModel.from_pretrained(toy_model(), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(TOKENS).logits, logits, atol=3e-6, rtol=1e-5)
    held = {n.replace(".default", ""): len(p) for n, p in loaded.base_model.model.named_parameters() if ".lora_E." in n}
    assert held == {name.replace(".default", ""): rank for name, rank in left.items()}
    pattern = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["rank_pattern"]
    assert (pattern is None) == (steps == 2)
    plain = adaptation.merge()
    assert type(plain) is type(toy_model())
    torch.testing.assert_close(plain(TOKENS).logits, logits, atol=3e-6, rtol=1e-5)


def test_an_option_changes_which_ranks_stay() -> None:
    sums = {}
    for told in ({}, {"sensitivity_decay": 0.1}, {"uncertainty_decay": 0.1}, {"alpha": 4.0}, {"dropout": 0.3}):
        adaptation, model = attached("adalora", toy_model(), **{**OPTIONS, **told})
        model.train()
        optimizer = optimizer_of(adaptation, model)
        for step in range(STEPS):
            torch.manual_seed(step)
            take_step(adaptation, model, optimizer, step)
        sums[str(told)] = tuple(ranks_of(model).values())
        assert sum(sums[str(told)]) == 2 * len(adaptation._layers)
    assert len(set(sums.values())) > 2


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="`start_rank` = 8 leaves none to take away"):
        AdaLoraOptions(rank=8, start_rank=8)
    with pytest.raises(ValueError, match="leave no steps in which ranks are shared out"):
        AdaLoraOptions(first_share=0.6, last_share=0.4)
    assert AdaLoraOptions(rank=5).ranks_at_first == 8
    adaptation, model = attached("adalora", toy_model(), **{**OPTIONS, "every": 6})
    with pytest.raises(UserError, match=r"adaptation\.every: 6 steps do not fit into the 6 of 12"):
        adaptation.before_step(context(adaptation, model, 0))
    adaptation, model = attached("adalora", toy_model(), rank=2)
    adaptation.before_step(context(adaptation, model, 0))  # by default 10, and in the end
