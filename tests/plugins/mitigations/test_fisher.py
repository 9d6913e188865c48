"""The Fisher information against brute force: one backward pass per row, squared, averaged."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from ftk import RunFailed, UserError
from ftk.examples import Examples, Task
from ftk.parts import Batch, Head, Loss, Objective
from ftk.testing.toys import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc import squares
from ftk_plugins.mitigations.ewc.fisher import Fisher, estimate_fisher
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

OBJECTIVE = CausalLM(CausalLMOptions())
TEXTS = [
    "a",
    "What is two plus two? Four.",
    "Short one.",
    "The last of the five rows is the longest of them.",
    "ab c",
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def llama(**sizes: Any) -> nn.Module:
    return randomised(toy_model(**sizes))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 260}
    return randomised(GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=1)))


def qwen3() -> nn.Module:
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "vocab_size": 260,
        "head_dim": 8,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return randomised(Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, bos_token_id=None, eos_token_id=1)))


def randomised(model: nn.Module) -> nn.Module:
    """Larger random weights, norms and biases too, so that no gradient is trivially small or symmetric."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(0.15 * noise)
    return model.eval()


def text_task(texts: list[str] = TEXTS) -> Task:
    return toy_task([{"text": text} for text in texts], OBJECTIVE)


def estimate(
    model: nn.Module, weights: Mapping[str, Tensor], task: Task | None = None, **changes: Any
) -> Fisher:
    told = {"samples": 500, "draw": False, "batch_size": 3}
    ctx_changes = {key: changes.pop(key) for key in list(changes) if key not in told}
    task = task or text_task()
    ctx = toy_context(model, task.objective, task=task, **ctx_changes)
    return estimate_fisher(task, ctx, weights, **{**told, **changes})


def brute_force(
    model: nn.Module, weights: Mapping[str, Tensor], texts: list[str] = TEXTS
) -> dict[str, Tensor]:
    """Row by row through autograd, with a loss of its own."""
    items = [item["input_ids"] for item in text_task(texts).train.encoded]
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for weight in weights.values():
        weight.requires_grad_()
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for ids in items:
        row = torch.from_numpy(ids.astype(np.int64))[None]
        loss = F.cross_entropy(model(input_ids=row).logits[0, :-1].float(), row[0, 1:], reduction="sum")
        gradients = torch.autograd.grad(loss, list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            sums[name] += gradient.detach() ** 2
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
    return {name: total / len(items) for name, total in sums.items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, diagonal in expected.items():
        error = float((found[name] - diagonal).norm() / diagonal.norm())
        assert error < tolerance, f"{name}: {error}"
        assert float(diagonal.norm()) > 1e-6, f"{name} has no gradient, which tests nothing"


def all_weights(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


MODELS = {
    "llama": llama,
    "llama_untied": lambda: llama(tie_word_embeddings=False, attention_bias=True),
    "gpt2": gpt2,
    "qwen3": qwen3,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_weight_equals_brute_force(make: Any) -> None:
    model, events = make(), []
    found = estimate(model, all_weights(model), events=events)
    assert_same(found.diagonal, brute_force(model, all_weights(model)))
    assert found.samples == len(TEXTS)
    assert found.trace == pytest.approx(
        sum(float(d.double().sum()) for d in found.diagonal.values()), rel=1e-6
    )
    assert not [event for event in events if event.kind == "warning"], "the batched way was not taken"


@pytest.mark.parametrize("options", [{}, {"init": "pissa", "rank": 4}, {"dropout": 0.5}], ids=str)
@pytest.mark.parametrize("make", [llama, gpt2, qwen3])
def test_base_weights_under_lora_equal_brute_force(make: Any, options: dict[str, Any]) -> None:
    plain = make()
    adaptation, events = Lora(LoraOptions(**options)), []
    model = adaptation.attach(copy.deepcopy(plain))
    weights = {name: drift.weight for name, drift in adaptation.drift().items()}
    found = estimate(model, weights, events=events)
    expected = brute_force(plain, {name: plain.get_parameter(name) for name in weights})
    assert_same(found.diagonal, expected, tolerance=1e-4 if options.get("init") else 1e-5)
    assert not [event for event in events if event.kind == "warning"]


def test_only_adapted_layers_deep_in_the_model_are_enough_to_start_the_graph() -> None:
    adaptation = Lora(LoraOptions(targets=("layers.1.mlp.down_proj",)))
    model = adaptation.attach(llama())
    weights = {name: drift.weight for name, drift in adaptation.drift().items()}
    assert_same(estimate(model, weights).diagonal, brute_force(model, weights))


@pytest.mark.parametrize("way", ["sample by sample", "in groups"])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_cutting_the_work_into_pieces_changes_nothing(
    make: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, the one for CPUs and the one for accelerators, with pieces small enough to need many."""
    monkeypatch.setattr(squares, "CACHE_ELEMENTS", 100)
    monkeypatch.setattr(squares, "GROUP_ELEMENTS", 20_000)
    if way == "in groups":
        monkeypatch.setattr(squares, "_by_sample", squares._by_group)
    model, events = make(), []
    found = estimate(model, all_weights(model), batch_size=5, events=events)
    assert_same(found.diagonal, brute_force(model, all_weights(model)))
    assert not [event for event in events if event.kind == "warning"]


def test_padding_changes_nothing() -> None:
    model = llama()
    alone = estimate(model, all_weights(model), text_task(TEXTS[:1]), batch_size=1).diagonal
    long = estimate(model, all_weights(model), text_task(TEXTS[3:4]), batch_size=1).diagonal
    both = estimate(model, all_weights(model), text_task([TEXTS[0], TEXTS[3]]), batch_size=2).diagonal
    assert_same(both, {name: (alone[name] + long[name]) / 2 for name in both})


def test_it_is_not_the_square_of_the_batch_gradient() -> None:
    model = llama()
    weights = {"lm_head": model.get_parameter("model.norm.weight")}
    twice = estimate(model, weights, text_task(["same row", "same row"]), batch_size=2)
    once = estimate(model, weights, text_task(["same row"]), batch_size=1)
    assert twice.trace == pytest.approx(once.trace, rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_half_precision_models_are_estimated_in_float32(precision: str) -> None:
    model = llama().to(torch.bfloat16)
    exact = llama().to(torch.bfloat16).float()
    found = estimate(model, all_weights(model), precision=precision)
    assert_same(found.diagonal, brute_force(exact, all_weights(exact)))
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
    assert_same(found.diagonal, brute_force(model, all_weights(model)))
    (warning,) = [event.data["text"] for event in events if event.kind == "warning"]
    assert named in warning


def test_unused_weights_have_no_fisher_and_cost_no_speed() -> None:
    model, events = llama(), []
    model.spare = nn.Linear(4, 4)
    found = estimate(model, all_weights(model), events=events)
    assert float(found.diagonal["spare.weight"].abs().sum()) == 0
    assert not [event for event in events if event.kind == "warning"]


def test_a_layer_that_is_called_twice_is_squared_once() -> None:
    model, events = llama(), []
    model.model.layers[1].mlp = model.model.layers[0].mlp
    found = estimate(model, all_weights(model), events=events)
    assert_same(found.diagonal, brute_force(model, all_weights(model)))
    assert not [event for event in events if event.kind == "warning"]


def test_samples_are_drawn_by_seed_and_counted() -> None:
    model = llama()
    weights = {"norm": model.get_parameter("model.norm.weight")}
    task = text_task([row["text"] for row in toy_rows(8)])
    first, again, other = (estimate(model, weights, task, samples=3, seed=seed) for seed in (0, 0, 1))
    assert first.samples == 3
    assert torch.equal(first.diagonal["norm"], again.diagonal["norm"])
    assert not torch.equal(first.diagonal["norm"], other.diagonal["norm"])


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
    both = estimate(
        model, weights, task, batch_size=1, rank=0, world_size=2, check_interrupt=lambda: asked.append(1)
    )
    assert_same(both.diagonal, brute_force(model, weights))
    assert len([event for event in events if event.kind == "phase"]) == len(asked) == 3


def test_no_rows_are_refused() -> None:
    model = llama()
    task = text_task()
    empty = replace(task, train=task.train.subset([]))
    with pytest.raises(UserError, match="toy has no rows"):
        estimate(model, all_weights(model), empty)


def test_gradients_that_are_not_finite_are_refused() -> None:
    model = llama()
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(RunFailed, match="not finite"):
        estimate(model, {"norm": model.get_parameter("model.layers.0.input_layernorm.weight")})


class Softmax(Objective):
    """Softmax regression of ``y`` on ``x``, whose Fisher information is known in closed form."""

    head = Head("sequence_classification", ("a", "b", "c"))

    def texts(self, row: Any) -> Any:
        return iter(())

    def encode(self, row: Any, processor: Any) -> dict[str, np.ndarray]:
        return {"x": np.array(row["x"], dtype=np.float32), "y": np.array([row["y"]])}

    def collate(self, items: Any) -> Batch:
        stacked = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in ("x", "y")}
        return Batch(stacked, len(items), len(items))

    def loss(self, model: nn.Module, batch: Batch, ctx: Any) -> Loss:
        total = F.cross_entropy(model(batch.inputs["x"]), batch.inputs["y"][:, 0], reduction="sum")
        return Loss(total, batch.count)

    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        drawn = torch.multinomial(model(batch.inputs["x"]).softmax(-1), 1, generator=generator)
        return replace(batch, inputs={**batch.inputs, "y": drawn})


def test_drawn_targets_give_the_true_fisher() -> None:
    generator = torch.Generator().manual_seed(5)
    model = nn.Linear(4, 3)
    model.weight.data = torch.randn(3, 4, generator=generator)
    model.bias.data = torch.randn(3, generator=generator)
    x = torch.randn(4000, 4, generator=generator)
    rows = Dataset.from_list([{"x": values.tolist(), "y": 0} for values in x])
    task = Task("regression", Softmax(), Examples(rows, Softmax(), None, "toy"))
    found = estimate(model, all_weights(model), task, samples=4000, draw=True, batch_size=500).diagonal
    p = model(x).softmax(-1).detach()
    variance = p * (1 - p)
    exact = {"weight": (variance[:, :, None] * x[:, None] ** 2).mean(0), "bias": variance.mean(0)}
    assert_same(found, exact, tolerance=0.05)
    empirical = estimate(model, all_weights(model), task, samples=4000, batch_size=500).diagonal
    assert float((empirical["weight"] - exact["weight"]).norm() / exact["weight"].norm()) > 0.5
