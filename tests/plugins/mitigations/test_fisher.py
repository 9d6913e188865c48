"""The Fisher information of every kind of weight against brute force, and against a closed form."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ftk import UserError
from ftk.parts import Batch, Examples, Head, Loss, Objective, Task
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc import scoring, squares
from ftk_plugins.mitigations.ewc.sites import Outer, Scatter
from tests.plugins.mitigations.brute_force import (
    TEXTS,
    all_weights,
    assert_same,
    brute_force,
    estimate,
    gpt2,
    llama,
    qwen3,
    text_task,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


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
    assert_same(found.parts, brute_force(model, all_weights(model)))
    assert found.samples == len(TEXTS)
    assert found.trace == pytest.approx(sum(float(d.double().sum()) for d in found.parts.values()), rel=1e-6)
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
    assert_same(found.parts, expected, tolerance=1e-4 if options.get("init") else 1e-5)
    assert not [event for event in events if event.kind == "warning"]


def test_only_adapted_layers_deep_in_the_model_are_enough_to_start_the_graph() -> None:
    adaptation = Lora(LoraOptions(targets=("layers.1.mlp.down_proj",)))
    model = adaptation.attach(llama())
    weights = {name: drift.weight for name, drift in adaptation.drift().items()}
    assert_same(estimate(model, weights).parts, brute_force(model, weights))


@pytest.mark.parametrize("on_cpu", [True, False], ids=["cpu", "accelerator"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cutting_the_work_into_pieces_changes_nothing(
    threads: int, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, with pieces and groups small enough to need many; a tied weight adds products and scattered rows."""
    monkeypatch.setattr(squares, "PIECE_ELEMENTS", 100)
    monkeypatch.setattr(squares, "THREAD_ELEMENTS", 200)
    monkeypatch.setattr(squares, "GROUP_ELEMENTS", 1000)
    monkeypatch.setattr(squares, "_on_cpu", lambda tensor: on_cpu)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    (batch, time, rows, columns), draw = (7, 5, 32, 11), torch.Generator().manual_seed(1)

    def drawn(channels: int) -> Tensor:
        return torch.randn(batch, time, channels, generator=draw)

    outer = [Outer(drawn(rows), drawn(columns)), Outer(drawn(rows), drawn(columns))]
    scatter = Scatter(torch.randint(rows, (batch, time), generator=draw), drawn(columns))
    found = torch.ones(rows, columns)
    squares.add_squares(found, [*outer, scatter])
    expected = torch.ones(rows, columns, dtype=torch.float64)
    for sample in range(batch):
        gradient = torch.zeros_like(expected)
        for t in range(time):
            for part in outer:
                gradient += torch.outer(part.left[sample, t].double(), part.right[sample, t].double())
            gradient[scatter.indices[sample, t]] += scatter.values[sample, t]
        expected += gradient**2
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing() -> None:
    model = llama()
    alone = estimate(model, all_weights(model), text_task(TEXTS[:1]), batch_size=1).parts
    long = estimate(model, all_weights(model), text_task(TEXTS[3:4]), batch_size=1).parts
    both = estimate(model, all_weights(model), text_task([TEXTS[0], TEXTS[3]]), batch_size=2).parts
    assert_same(both, {name: (alone[name] + long[name]) / 2 for name in both})


def test_flash_attention_gives_way_while_all_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no float32; this stand-in has nothing at all."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("FlashAttention only supports fp16 and bf16")

    model = llama()
    known = estimate(model, all_weights(model)).parts
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", refuse)
    model.config._attn_implementation_internal = "flash_attention_2"
    assert_same(estimate(model, all_weights(model)).parts, known)
    assert model.config._attn_implementation == "flash_attention_2"


def test_it_is_not_the_square_of_the_batch_gradient() -> None:
    model = llama()
    weights = {"lm_head": model.get_parameter("model.norm.weight")}
    twice = estimate(model, weights, text_task(["same row", "same row"]), batch_size=2)
    once = estimate(model, weights, text_task(["same row"]), batch_size=1)
    assert twice.trace == pytest.approx(once.trace, rel=1e-5)


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

    def all_targets(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Batch]]:
        chances = model(batch.inputs["x"]).softmax(-1).unbind(1)
        targets = [torch.full_like(batch.inputs["y"], label) for label in range(3)]
        return [(p, replace(batch, inputs={**batch.inputs, "y": y})) for p, y in zip(chances, targets, strict=True)]


def regression(rows: int) -> tuple[nn.Module, Task, dict[str, Tensor]]:
    """A model, its task, and the true Fisher information in closed form."""
    generator = torch.Generator().manual_seed(5)
    model = nn.Linear(4, 3)
    model.weight.data = torch.randn(3, 4, generator=generator)
    model.bias.data = torch.randn(3, generator=generator)
    x = torch.randn(rows, 4, generator=generator)
    data = Dataset.from_list([{"x": values.tolist(), "y": 0} for values in x])
    p = model(x).softmax(-1).detach()
    variance = p * (1 - p)
    exact = {"weight": (variance[:, :, None] * x[:, None] ** 2).mean(0), "bias": variance.mean(0)}
    return model, Task("regression", Softmax(), Examples(data, Softmax(), None, "toy")), exact


def test_drawn_targets_give_the_true_fisher() -> None:
    model, task, exact = regression(4000)
    found = estimate(model, all_weights(model), task, samples=4000, labels="sample", batch_size=500).parts
    assert_same(found, exact, tolerance=0.05)
    empirical = estimate(model, all_weights(model), task, samples=4000, batch_size=500).parts
    assert float((empirical["weight"] - exact["weight"]).norm() / exact["weight"].norm()) > 0.5


class Odd(nn.Linear):
    """A layer that no rule knows, so that rows are taken one by one."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


def test_all_targets_give_the_true_fisher_exactly() -> None:
    """Each class by its probability; with hooks, row by row, and as factors."""
    model, task, exact = regression(7)
    odd = Odd(4, 3)
    odd.load_state_dict(model.state_dict())
    for each in (model, odd):
        assert_same(estimate(each, all_weights(each), task, labels="exact").parts, exact)
    factors = estimate(model, all_weights(model), task, labels="exact", kind="factored").parts
    sums = {"weight/rows": exact["weight"].sum(1), "weight/columns": exact["weight"].sum(0), "bias": exact["bias"]}
    assert_same(factors, sums)
    kronecker = estimate(model, all_weights(model), task, labels="exact", kind="kfac").parts
    x = torch.from_numpy(np.stack([item["x"] for item in task.train.items]))
    p = model(x).softmax(-1).detach()
    outputs = torch.stack([torch.diag(each) - torch.outer(each, each) for each in p]).mean(0)
    expected = torch.kron(outputs, x.mT @ x / len(x))
    found = torch.kron(kronecker["weight/rows"], kronecker["weight/columns"]) / kronecker["weight/rows"].trace()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_too_many_targets_for_a_pass_each_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MOST_TARGETS", 2)
    model, task, _ = regression(3)
    with pytest.raises(UserError, match="can have 3 targets"):
        estimate(model, all_weights(model), task, labels="exact")


def test_sizes_of_gradients_in_place_of_squares() -> None:
    """For methods that sum the size of each row's gradient, of a loss of their own."""
    model, task, _ = regression(6)

    def loss(batch: Batch, ctx: Any) -> Tensor:
        return (ctx.model(batch.inputs["x"]) ** 2).sum()

    odd = Odd(4, 3)
    odd.load_state_dict(model.state_dict())
    x = torch.from_numpy(np.stack([item["x"] for item in task.train.items]))
    slope = 2 * model(x).detach()
    expected = {"weight": (slope[:, :, None] * x[:, None]).abs().mean(0), "bias": slope.abs().mean(0)}
    for each in (model, odd):
        assert_same(estimate(each, all_weights(each), task, of="absolute", loss=loss).parts, expected)
