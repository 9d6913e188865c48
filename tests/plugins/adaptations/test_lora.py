"""Low-rank adaptation: drift, chain rule, reference, scaling, export and merge, against PEFT and autograd."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from ftk import UserError
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from tests.plugins.adaptations.effective import shake

TOKENS = torch.arange(3, 23).view(2, 10)


def toy_gpt2() -> Any:
    """Two layers whose linear weights are stored transposed."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=260, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    return GPT2LMHeadModel(config).eval()


MODELS = {"llama": toy_model, "gpt2": toy_gpt2}
VARIANTS = [{}, {"rslora": True}, {"init": "gaussian"}, {"init": "pissa"}, {"init": "milora", "rslora": True}]
CASES = [(model, variant) for model in MODELS for variant in VARIANTS]


def attached(model: Any, **options: Any) -> tuple[Lora, Any]:
    torch.manual_seed(7)
    adaptation = Lora(LoraOptions(**{"rank": 4, "alpha": 6, **options}))
    return adaptation, adaptation.attach(model)


def merged_by_peft(model: Any) -> Any:
    """PEFT's own merge of a copy, as the independent account of the effective weights."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if hasattr(module, "lora_A"):
            module.merge()
    return twin


def layers_of(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_drift_is_the_merged_weight_minus_the_start(
    kind: str, variant: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # which cuts the products' rows into blocks
    plain = MODELS[kind]()
    adaptation, model = attached(copy.deepcopy(plain), **variant)
    torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits, atol=2e-6, rtol=0)
    drifts = adaptation.drift()
    assert len(drifts) == {"llama": 14, "gpt2": 8}[kind]
    for drift in drifts.values():
        assert drift.rows(0, drift.shape[0]).abs().max() < 1e-6
    shake(model)
    merged = layers_of(merged_by_peft(model))
    for name, drift in drifts.items():
        layer = merged[name.removesuffix(".weight")]
        assert drift.weight is layers_of(model)[name.removesuffix(".weight")].base_layer.weight
        assert torch.equal(drift.weight, plain.get_parameter(name)), "the base is never touched"
        expected = layer.base_layer.weight - plain.get_parameter(name)
        assert expected.abs().max() > 1e-3
        assert drift.rows(2, 11).shape == expected[2:11].shape
        torch.testing.assert_close(drift.rows(2, 11), expected[2:11], atol=2e-6, rtol=0)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_chain_rule_is_autograds(
    kind: str, variant: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    adaptation, model = attached(MODELS[kind](), **variant)
    shake(model)
    scale = 6 / 2 if variant.get("rslora") else 6 / 4
    for name, drift in adaptation.drift().items():
        layer = layers_of(model)[name.removesuffix(".weight")]
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        wide_a, wide_b = a.detach().double().requires_grad_(), b.detach().double().requires_grad_()
        effective = scale * (wide_b @ wide_a)
        effective = effective.T if kind == "gpt2" else effective
        curvature = torch.rand(drift.shape)
        loss = (curvature.double() * effective.square())[3:20].sum() / 2
        loss.backward()
        gradient = (curvature * effective.detach().float())[3:20]
        a.grad = torch.ones_like(a)
        drift.pull_back(3, 8, gradient[:5])
        drift.pull_back(8, 20, gradient[5:])
        torch.testing.assert_close(a.grad - 1, wide_a.grad.float(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(b.grad, wide_b.grad.float(), atol=1e-5, rtol=1e-5)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_drift_stays_float32_under_autocast() -> None:
    adaptation, model = attached(toy_model())
    shake(model)
    drift = next(iter(adaptation.drift().values()))
    expected = drift.rows(0, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(drift.rows(0, 8), expected)
        drift.pull_back(0, 8, expected)


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_reference_is_exactly_the_start(kind: str, variant: dict[str, Any]) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached(copy.deepcopy(plain), **variant)
    shake(model)
    trained = model(TOKENS).logits
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    with torch.no_grad(), adaptation.reference():
        with adaptation.reference():
            assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
        assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits), "leaving the inner one changes nothing"
    assert torch.equal(model(TOKENS).logits, trained)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trainable


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_scaling_is_absolute_and_exact_at_both_ends(kind: str, variant: dict[str, Any]) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached(copy.deepcopy(plain), **variant)
    shake(model)
    trained = model(TOKENS).logits
    drifts = {name: drift.rows(0, drift.shape[0]) for name, drift in adaptation.drift().items()}
    for alpha in (0.25, 0.0, 1.0, 0.7):
        adaptation.scale(alpha)
        for name, drift in adaptation.drift().items():
            torch.testing.assert_close(drift.rows(0, drift.shape[0]), alpha * drifts[name], atol=1e-6, rtol=1e-5)
        if alpha in (0, 1):
            assert torch.equal(model(TOKENS).logits, trained if alpha else plain(TOKENS).logits)


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_export_loads_in_plain_peft(kind: str, variant: dict[str, Any], tmp_path: Path) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached(copy.deepcopy(plain), dropout=0.1, **variant)
    shake(model)
    adaptation.scale(0.6)
    adaptation.export(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(TOKENS).logits, model(TOKENS).logits, atol=3e-6, rtol=1e-5)
    assert not torch.allclose(loaded(TOKENS).logits, plain(TOKENS).logits, atol=1e-3)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["r"] == (8 if variant.get("init") in ("pissa", "milora") else 4)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_merging_gives_a_plain_model_with_the_same_function(kind: str, variant: dict[str, Any]) -> None:
    plain = MODELS[kind]()
    names = list(plain.state_dict())
    next(plain.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in plain.parameters()]
    adaptation, model = attached(plain, **variant)
    shake(model)
    logits = model(TOKENS).logits
    merged = adaptation.merge()
    assert type(merged) is type(MODELS[kind]())
    assert list(merged.state_dict()) == names
    assert not hasattr(merged, "peft_config")
    assert [p.requires_grad for p in merged.parameters()] == flags
    torch.testing.assert_close(merged(TOKENS).logits, logits, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_restarting_gives_the_model_back_bit_for_bit(variant: dict[str, Any]) -> None:
    adaptation, model = attached(toy_model(), **variant)
    shake(model)
    saved = {name: tensor.clone() for name, tensor in adaptation.state_dict().items()}
    resumed = Lora(LoraOptions(rank=4, alpha=6, **variant))
    torch.manual_seed(99)
    again = resumed.attach(toy_model())
    resumed.scale(0.0)
    resumed.load_state_dict(saved)
    resumed.scale(1.0)
    assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)
    key = "model.layers.0.mlp.up_proj.lora_A"
    saved["stray"] = saved.pop(key)
    with pytest.raises(ValueError, match=rf"missing: {key}; unexpected: stray"):
        resumed.load_state_dict(saved)


def test_singular_inits_take_the_largest_and_the_smallest_directions() -> None:
    weight = toy_model().model.layers[0].mlp.up_proj.weight.detach().double()
    singular = torch.linalg.svdvals(weight)
    for init, expected in (("pissa", singular[:4]), ("milora", singular[-4:])):
        _, model = attached(toy_model(), init=init)
        layer = layers_of(model)["model.layers.0.mlp.up_proj"]
        update = layer.scaling["default"] * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)
        values = torch.linalg.svdvals(update.detach().double())[:4]
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
        rest = torch.linalg.svdvals(weight - update.detach().double())
        kept = singular[4:] if init == "pissa" else singular[:-4]
        torch.testing.assert_close(rest[: len(kept)], kept, atol=1e-5, rtol=0)


def test_adapters_are_float32_over_a_bfloat16_model_and_follow_its_mode() -> None:
    adaptation, model = attached(toy_model().to(torch.bfloat16), dropout=0.5)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert not any(module.training for module in model.modules()), "dropout must be off in an eval model"
    shake(model)
    logits = model(TOKENS).logits
    model.train()
    assert not torch.equal(model(TOKENS).logits, logits)
    model.eval()
    for drift in adaptation.drift().values():
        assert drift.rows(0, 4).dtype == torch.float32
    merged = adaptation.merge()
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(merged(TOKENS).logits.float(), logits.float(), atol=0.03, rtol=0.05)


def test_targets_are_chosen_by_name_or_by_its_end() -> None:
    _, model = attached(toy_model(), targets=["layers.0.mlp.*", "q_proj"])
    assert set(layers_of(model)) == {
        *(f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")),
        *(f"model.layers.{number}.self_attn.q_proj" for number in (0, 1)),
    }
    _, untied = attached(toy_model(tie_word_embeddings=False))
    assert "lm_head" not in layers_of(untied), "all-linear leaves the output layer out"
    _, untied = attached(toy_model(tie_word_embeddings=False), targets=["lm_head"])
    assert set(layers_of(untied)) == {"lm_head"}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], r"'q_prj' matches no linear layer of the model\n  did you mean `q_proj`"),
        (["nothing"], "valid here: down_proj, gate_proj, k_proj, lm_head"),
        (["layers.*.mlp.up"], r"did you mean `model\.layers\.\*\.mlp\.up_proj`"),
        (["lm_head"], "lm_head shares its weight with another layer"),
    ],
)
def test_wrong_targets_are_the_users_error(targets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attached(toy_model(), targets=targets)


def test_a_model_that_has_an_adapter_is_refused() -> None:
    _, model = attached(toy_model())
    with pytest.raises(UserError, match="already carries an adapter"):
        attached(model)


def test_learning_rates_of_a_and_b() -> None:
    adaptation, model = attached(toy_model())
    (group,) = adaptation.param_groups(model, 0.5)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
    adaptation, model = attached(toy_model(), b_lr_ratio=16, init="pissa")
    a, b = adaptation.param_groups(model, 0.5)
    assert (a["lr"], b["lr"]) == (0.5, 8.0)
    assert all(p.shape[0] == 4 for p in a["params"])
    assert all(p.shape[1] == 4 for p in b["params"])
    assert {id(p) for p in a["params"] + b["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
