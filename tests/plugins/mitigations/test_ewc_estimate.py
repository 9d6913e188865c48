"""How the Fisher information is estimated: which rows, what precision, what stays behind, what falls back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk import RunFailed, UserError
from ftk.testing.toys import toy_rows, toy_task
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from tests.plugins.mitigations.brute_force import (
    all_weights,
    assert_same,
    brute_force,
    estimate,
    llama,
    text_task,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_half_precision_models_are_estimated_in_float32(precision: str) -> None:
    model = llama().to(torch.bfloat16)
    exact = llama().to(torch.bfloat16).float()
    found = estimate(model, all_weights(model), precision=precision)
    assert_same(found.parts, brute_force(exact, all_weights(exact)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_nothing_is_left_behind() -> None:
    adaptation = Lora(LoraOptions(dropout=0.1))
    model = adaptation.attach(llama(attention_dropout=0.3)).train()
    model.model.norm.eval()
    before = snapshot(model)
    weights = {name: drift.weight for name, drift in adaptation.drift().items()}
    weights["model.norm.weight"] = model.get_parameter("model.norm.weight")
    estimate(model, weights)
    assert snapshot(model) == before


def test_nothing_is_left_behind_after_an_interruption() -> None:
    model = llama().train()
    calls = iter(range(100))

    def interrupt() -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        estimate(model, all_weights(model), check_interrupt=interrupt)
    assert snapshot(model) == before


def snapshot(model: nn.Module) -> list[Any]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    parameters = [
        (name, id(p), p.requires_grad, p.grad is None, p.dtype, p._backward_hooks)
        for name, p in model.named_parameters()
    ]
    return [hooks, parameters, sum(p.double().sum().item() for p in model.parameters())]


class Doubling(nn.Linear):
    """A layer with a forward pass that no rule knows."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class OddNorm(nn.Module):
    """Looks like RMSNorm, but its weight does not work with one copy for each row."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * F.softmax(self.weight, dim=0).roll(1, 0)[None, None]


def replace_layer(model: nn.Module, kind: str) -> str:
    """Put in something that hooks cannot tell apart; returns what the warning must name."""
    if kind == "unknown":
        layer = model.model.layers[0].mlp.up_proj
        odd = Doubling(layer.in_features, layer.out_features, bias=False)
        odd.weight = layer.weight
        model.model.layers[0].mlp.up_proj = odd
        return "Doubling"
    if kind == "norm":
        model.model.norm = OddNorm(model.model.norm.weight)
        return "OddNorm"
    gate = model.model.layers[0].mlp.gate_proj  # its weight is used a second time, outside of its layer
    down = model.model.layers[0].mlp.down_proj
    down.register_forward_hook(lambda module, args, output: output + F.linear(output, gate.weight)[..., :32])
    return "gate_proj"


@pytest.mark.parametrize("kind", ["unknown", "norm", "functional"])
def test_what_hooks_cannot_tell_apart_is_done_row_by_row_with_a_warning(kind: str) -> None:
    model, events = llama(), []
    named = replace_layer(model, kind)
    found = estimate(model, all_weights(model), events=events)
    assert_same(found.parts, brute_force(model, all_weights(model)))
    (warning,) = [event.data["text"] for event in events if event.kind == "warning"]
    assert named in warning


def test_unused_weights_have_no_fisher_and_cost_no_speed() -> None:
    model, events = llama(), []
    model.spare = nn.Linear(4, 4)
    found = estimate(model, all_weights(model), events=events)
    assert float(found.parts["spare.weight"].abs().sum()) == 0
    assert not [event for event in events if event.kind == "warning"]


def test_a_layer_that_is_called_twice_is_squared_once() -> None:
    model, events = llama(), []
    model.model.layers[1].mlp = model.model.layers[0].mlp
    found = estimate(model, all_weights(model), events=events)
    assert_same(found.parts, brute_force(model, all_weights(model)))
    assert not [event for event in events if event.kind == "warning"]


def test_samples_are_drawn_by_seed_and_counted() -> None:
    model = llama()
    weights = {"norm": model.get_parameter("model.norm.weight")}
    task = text_task([row["text"] for row in toy_rows(8)])
    first, again, other = (estimate(model, weights, task, samples=3, seed=seed) for seed in (0, 0, 1))
    assert first.samples == 3
    assert torch.equal(first.parts["norm"], again.parts["norm"])
    assert not torch.equal(first.parts["norm"], other.parts["norm"])


def test_a_text_longer_than_a_row_is_cut_as_training_cuts_it() -> None:
    objective = CausalLM(CausalLMOptions(max_length=16))
    task = toy_task([{"text": "x" * 100}], objective)
    model = llama()
    lengths: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    found = estimate(model, {"norm": model.get_parameter("model.norm.weight")}, task)
    assert found.samples == 7
    assert max(lengths) == 16


def test_progress_is_told_and_interruption_asked_between_batches() -> None:
    model, events, asked = llama(), [], []
    weights = {"norm": model.get_parameter("model.norm.weight")}
    estimate(model, weights, batch_size=2, events=events, check_interrupt=lambda: asked.append(1))
    phases = [(event.data["done"], event.data["total"]) for event in events if event.kind == "phase"]
    assert phases == [(2, 5), (4, 5), (5, 5)]
    assert len(asked) == 3


def test_processes_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes played one after the other: the first leaves its sums, the second adds them."""
    model, left = llama(), []
    weights, task = all_weights(model), text_task()
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: left.append(total.clone()))
    events: list[Any] = []
    estimate(model, weights, task, batch_size=1, rank=1, world_size=2, events=events)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(left.pop(0)))
    asked: list[int] = []
    both = estimate(model, weights, task, batch_size=1, rank=0, world_size=2, check_interrupt=lambda: asked.append(1))
    assert_same(both.parts, brute_force(model, weights))
    assert len([event for event in events if event.kind == "phase"]) == len(asked) == 3


def test_no_rows_are_refused() -> None:
    model = llama()
    task = text_task()
    empty = replace(task, train=task.train.subset([]))
    with pytest.raises(UserError, match="toy has no rows"):
        estimate(model, all_weights(model), empty)


def test_gradients_that_are_not_finite_are_refused_at_once() -> None:
    model, events = llama(), []
    model.model.norm.weight.data[0] = float("nan")
    weights = {"norm": model.get_parameter("model.layers.0.input_layernorm.weight")}
    with pytest.raises(RunFailed, match="`toy` are not finite"):
        estimate(model, weights, events=events)
    assert events == []


def test_gradients_that_were_there_before_stay() -> None:
    model = llama()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    found = estimate(model, all_weights(model))
    assert all(bool((parameter.grad == 7).all()) for parameter in model.parameters())
    assert_same(found.parts, brute_force(model, all_weights(model)))


def test_drawn_targets_are_estimated_in_batches_too() -> None:
    """The pass that draws them is heard by no hook, which would take it for the one that is squared."""
    model, events = llama(), []
    estimate(model, all_weights(model), labels="sample", batch_size=3, events=events)
    assert [event for event in events if event.kind == "warning"] == []
