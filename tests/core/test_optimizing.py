"""Optimizers: each by its paper's formula, on the weights that it is for, and resumed with the same bits."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from ftk.disk.bundles import Bundler, read_bundle
from ftk.errors import RecipeError, UserError
from ftk.parts import weight_kinds
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.training import Training
from ftk.running.optimizing import build_optimizer, pack_optimizer, unpack_optimizer
from ftk.testing import toy_model

CPU = torch.device("cpu")
RATE, DECAY = 0.01, 0.5
CHOICES: list[Any] = [
    "adamw",
    "adafactor",
    "sgd",
    {"use": "sgd", "momentum": 0.0},
    "muon",
    pytest.param("adamw_8bit", marks=pytest.mark.skipif(not find_spec("bitsandbytes"), reason="not installed")),
]


class Net(nn.Module):
    """A hidden matrix, an embedding and a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 8)
        self.hidden = nn.Linear(8, 6, bias=False)
        self.norm = nn.LayerNorm(6, bias=False)

    def groups(self) -> list[dict[str, Any]]:
        """As an adaptation gives them."""
        still = [self.embed.weight, self.norm.weight]
        return [
            {"params": [self.hidden.weight], "lr": RATE},
            {"params": still, "lr": RATE, "weight_decay": 0.0},
        ]


def made(net: Net, optimizer: Any, decay: float = DECAY) -> torch.optim.Optimizer:
    return build_optimizer(Training(optimizer=optimizer, weight_decay=decay), net.groups(), net, CPU)


def draw_gradients(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def steps(optimizer: Any, count: int, decay: float = DECAY) -> tuple[Net, list[dict[str, torch.Tensor]]]:
    """A net after ``count`` steps, and the gradients of each."""
    net = Net()
    chosen, seen = made(net, optimizer, decay), []
    for step in range(count):
        draw_gradients(net, step)
        seen.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
        chosen.step()
    return net, seen


def decay_of(name: str) -> float:
    return DECAY if name == "hidden.weight" else 0.0


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_by_its_formula(nesterov: bool) -> None:
    """Loshchilov & Hutter 2019, algorithm 1, with the momentum as torch writes it."""
    net, seen = steps({"use": "sgd", "momentum": 0.8, "nesterov": nesterov}, 4)
    for name, weight in Net().named_parameters():
        value, velocity = weight.detach(), torch.zeros_like(weight)
        for gradients in seen:
            velocity = 0.8 * velocity + gradients[name]
            value = value * (1 - RATE * decay_of(name))
            value = value - RATE * (gradients[name] + 0.8 * velocity if nesterov else velocity)
        torch.testing.assert_close(dict(net.named_parameters())[name].detach(), value)


@pytest.mark.parametrize("scaled", [False, True])
def test_adafactor_by_its_formula(scaled: bool) -> None:
    """Shazeer & Stern 2018, algorithms 4 and 5, with the step size given."""
    options = {
        "use": "adafactor",
        "decay_rate": 0.7,
        "clip_threshold": 0.9,
        "epsilon": 1e-6,
        "scale_by_weights": scaled,
    }
    net, seen = steps(options, 4)
    for name, weight in Net().named_parameters():
        value, rows, columns, squares = weight.detach(), 0.0, 0.0, 0.0
        for step, gradients in enumerate(seen, start=1):
            gradient, beta = gradients[name], 1 - step**-0.7
            square = gradient**2 + 1e-6
            if weight.ndim == 2:
                rows = beta * rows + (1 - beta) * square.sum(1)
                columns = beta * columns + (1 - beta) * square.sum(0)
                estimate = torch.outer(rows, columns) / rows.sum()
            else:
                estimate = squares = beta * squares + (1 - beta) * square
            update = gradient / estimate.sqrt()
            update = update / max(1.0, float(update.square().mean().sqrt()) / 0.9)
            rate = RATE * (max(1e-3, float(value.square().mean().sqrt())) if scaled else 1)
            value = value * (1 - rate * decay_of(name)) - rate * update
        torch.testing.assert_close(dict(net.named_parameters())[name].detach(), value)


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_orthogonalises_the_hidden_matrices_updates(nesterov: bool) -> None:
    """Jordan et al. 2024; the update is U·Vᵀ of the momentum, its size that of AdamW's (Liu et al. 2025, eq. 4)."""
    options = {"use": "muon", "momentum": 0.9, "nesterov": nesterov, "iterations": 12}
    net, seen = steps(options, 1, decay=0.0)
    before, gradient = Net().hidden.weight.detach(), seen[0]["hidden.weight"]
    update = (before - net.hidden.weight.detach()) / (RATE * 0.2 * 8**0.5)
    u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
    in_its_axes = u.T @ update @ vh.T
    assert float(in_its_axes.diagonal().min()) > 0.6
    assert float(in_its_axes.diagonal().max()) < 1.3
    assert float((in_its_axes - torch.diag(in_its_axes.diagonal())).abs().max()) < 0.05
    plain, _ = steps({"use": "muon", "momentum": 0.9, "nesterov": not nesterov}, 3, decay=0.0)
    other, _ = steps({"use": "muon", "momentum": 0.9, "nesterov": nesterov}, 3, decay=0.0)
    fewer, _ = steps({"use": "muon", "momentum": 0.9, "nesterov": nesterov, "iterations": 1}, 3, decay=0.0)
    assert not torch.allclose(plain.hidden.weight, other.hidden.weight, atol=1e-3)
    assert not torch.allclose(fewer.hidden.weight, other.hidden.weight, atol=1e-3)


def test_muon_leaves_all_other_weights_to_adamw() -> None:
    ours, _ = steps({"use": "muon", "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-3}, 3)
    theirs, _ = steps({"use": "adamw", "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-3}, 3)
    assert torch.equal(ours.embed.weight, theirs.embed.weight)
    assert torch.equal(ours.norm.weight, theirs.norm.weight)
    assert not torch.allclose(ours.hidden.weight, theirs.hidden.weight, atol=1e-3)
    decayed, still = (steps("muon", 1, decay)[0].hidden.weight.detach() for decay in (DECAY, 0.0))
    torch.testing.assert_close(decayed - still, -RATE * DECAY * Net().hidden.weight.detach())


def test_muon_without_a_hidden_matrix_is_refused() -> None:
    net = Net()
    with pytest.raises(UserError, match="muon is for the matrices of hidden layers, and none is trained"):
        build_optimizer(Training(optimizer="muon"), [{"params": [net.embed.weight], "lr": RATE}], net, CPU)


@pytest.mark.parametrize("optimizer", CHOICES, ids=str)
def test_an_optimizer_goes_on_as_if_it_had_not_stopped(optimizer: Any, tmp_path: Path) -> None:
    def names(net: Net) -> dict[int, str]:
        return {id(parameter): name for name, parameter in net.named_parameters()}

    net = Net()
    first = made(net, optimizer)
    for step in range(2):
        draw_gradients(net, step)
        first.step()
    states = {"o": pack_optimizer(first, names(net)), "m": dict(net.state_dict())}
    Bundler().take(tmp_path / "b", states, copy=True).write()
    other = Net()
    second = made(other, optimizer)
    saved, _ = read_bundle(tmp_path / "b")
    other.load_state_dict(saved["m"])
    unpack_optimizer(second, names(other), saved["o"])
    for trained, chosen in ((net, first), (other, second)):
        draw_gradients(trained, 2)
        chosen.step()
    for name, parameter in net.named_parameters():
        assert torch.equal(dict(other.named_parameters())[name], parameter)


def test_the_rate_of_a_group_reaches_every_optimizer() -> None:
    for choice in ("adamw", "adafactor", "sgd", "muon"):
        net = Net()
        optimizer = made(net, choice)
        assert {group["lr"] for group in optimizer.param_groups} == {RATE}
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        draw_gradients(net, 0)
        optimizer.step()
        assert all(torch.equal(p, dict(Net().named_parameters())[name]) for name, p in net.named_parameters()), choice


def test_8_bits_without_bitsandbytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    monkeypatch.setattr("ftk.recipe.checking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        made(Net(), "adamw_8bit")
    table = {
        "name": "x", "model": {"use": "scratch"}, "objective": {"use": "causal_lm"}, "adaptation": {"use": "full"},
        "data": {"train": {"use": "world_facts"}}, "training": {"optimizer": "adamw_8bit"},
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"training\.optimizer: `adamw_8bit` needs bitsandbytes"):
        recipe_from_table(table, "r", "")


def test_8_bits_where_bitsandbytes_cannot_step_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        AdamW8bit = None

    monkeypatch.setitem(sys.modules, "bitsandbytes", Broken)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", Broken)
    with pytest.raises(UserError, match="the installed bitsandbytes cannot step on cpu"):
        made(Net(), "adamw_8bit")


SMALL: dict[str, Any] = {"num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1, "hidden_size": 16}
BERT = BertConfig(vocab_size=50, **SMALL)
GPT2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
T5 = T5Config(d_model=16, num_layers=1, num_heads=2, d_ff=32, d_kv=8, vocab_size=50, tie_word_embeddings=False)


@pytest.mark.parametrize(
    ("model", "kind", "names"),
    [
        (toy_model(), "embedding", "embed_tokens.weight"),
        (toy_model(), "norm", "layernorm.weight norm.weight"),
        (toy_model(), "matrix", "proj.weight"),
        (toy_model(tie_word_embeddings=False), "head", "lm_head.weight"),
        (AutoModelForCausalLM.from_config(GPT2), "embedding", "wte.weight wpe.weight"),
        (AutoModelForCausalLM.from_config(GPT2), "matrix", "c_attn.weight c_proj.weight c_fc.weight"),
        (AutoModelForSequenceClassification.from_config(BERT), "head", "classifier.weight"),
        (AutoModelForSequenceClassification.from_config(BERT), "norm", "LayerNorm.weight LayerNorm.bias"),
        (AutoModelForSequenceClassification.from_config(BERT), "embedding", "embeddings.weight"),
        (T5ForConditionalGeneration(T5), "head", "lm_head.weight"),
        (T5ForConditionalGeneration(T5), "embedding", "shared.weight relative_attention_bias.weight"),
        (ViTForImageClassification(ViTConfig(**SMALL)), "embedding", "cls_token position_embeddings"),
        (ViTForImageClassification(ViTConfig(**SMALL)), "head", "classifier.weight"),
    ],
)  # fmt: skip
def test_weights_are_told_apart(model: nn.Module, kind: str, names: str) -> None:
    ends = tuple(names.split())
    found = weight_kinds(model)
    assert set(found) == set(model.parameters())
    for name, parameter in model.named_parameters():
        assert (found[parameter] == kind) == name.endswith(ends), name
