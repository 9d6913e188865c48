"""`mas` against its formula, one row and one backward pass at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForSequenceClassification

import ftk
from ftk import UserError
from ftk.parts import Context, Task
from ftk.testing import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.mitigations.mas.mas import Mas
from ftk_plugins.mitigations.mas.options import MasOptions
from tests.core.loops import build
from tests.plugins.mitigations.ewc_stage import gpt2, stage, task
from tests.plugins.mitigations.test_ewc import loss_of, train

TEXTS = [{"text": row["text"], "label": ("even", "odd")[index % 2]} for index, row in enumerate(toy_rows(6))]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def remembered(ctx: Context, *tasks: Task, **options: Any) -> Mas:
    mas = Mas(MasOptions(**options))
    for each in tasks:
        mas.remember(each, ctx)
    mas.begin(ctx)
    return mas


def omega_of(mas: Mas) -> dict[str, Tensor]:
    prefix = "importance/"
    return {key.removeprefix(prefix): value for key, value in mas.state_dict().items() if key.startswith(prefix)}


def one_by_one(model: nn.Module, outputs: list[Any]) -> dict[str, Tensor]:
    """The mean over rows of the size of each row's gradient."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in named.items()}
    for of_row in outputs:
        found = torch.autograd.grad(of_row().square().sum(), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, found, strict=True):
            sums[name] += 0 if gradient is None else gradient.abs()
    return {name: total / len(outputs) for name, total in sums.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5 * float(value.max()))
        assert value.any(), name


@pytest.mark.parametrize("make", [toy_model, gpt2])
def test_it_is_the_mean_size_of_each_row_s_gradient_of_the_squared_logits(make: Any) -> None:
    """Over all positions of a text that predict one, which differ in length and are padded together."""
    ctx = stage(build("adaptation", "full"), make())
    found = omega_of(remembered(ctx, task(), normalise=False))

    def logits(item: Any) -> Tensor:
        ids = torch.tensor(item["input_ids"], dtype=torch.long)[None]
        return ctx.model(input_ids=ids).logits[:, :-1].float()

    expected = one_by_one(ctx.model, [lambda item=item: logits(item) for item in task().train.pieces])
    assert_near(found, expected)
    scaled = remembered(ctx, task())
    flat = torch.cat([value.flatten() for value in omega_of(scaled).values()])
    assert float(flat.mean()) == pytest.approx(1, rel=1e-4)
    trace = sum(float(value.sum()) for value in expected.values())
    assert scaled.report()["tasks"]["old"] == {"trace": pytest.approx(trace, rel=1e-3), "samples": 6}


def classifying(rows: list[dict[str, str]], **options: Any) -> tuple[Context, Task]:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    options = {"labels": ("even", "odd"), **options}
    labels = len(options["labels"])
    config = LlamaConfig(vocab_size=260, pad_token_id=0, num_labels=labels, num_key_value_heads=2, **sizes)
    adaptation = build("adaptation", "full")
    objective = build("objective", "classification", **options)
    model = adaptation.attach(LlamaForSequenceClassification(config).eval())
    return toy_context(model, objective, adaptation), toy_task(rows, objective, "old")


def test_labels_do_not_enter_so_that_rows_without_one_can_have_any() -> None:
    ctx, labelled = classifying(TEXTS)
    found = omega_of(remembered(ctx, labelled, normalise=False))
    other, alike = classifying([{**row, "label": "even"} for row in TEXTS])
    again = omega_of(remembered(other, alike, normalise=False))
    assert all(torch.equal(again[name], value) for name, value in found.items())

    def logits(item: Any) -> Tensor:
        ids = torch.tensor(item["input_ids"], dtype=torch.long)[None]
        return ctx.model(input_ids=ids).logits

    rows = [lambda item=item: logits(item) for item in labelled.train.pieces]
    assert_near(found, one_by_one(ctx.model, rows))


def test_classes_that_have_not_come_do_not_enter() -> None:
    labels = ("odd", "later", "even", "never")
    ctx, old = classifying(TEXTS, labels=labels, incremental=True, taught=("even", "odd"))
    found = omega_of(remembered(replace(ctx, earlier=(old,)), old, normalise=False))

    def logits(item: Any) -> Tensor:
        ids = torch.tensor(item["input_ids"], dtype=torch.long)[None]
        return torch.stack([ctx.model(input_ids=ids).logits[0, place] for place in (0, 2)])

    expected = one_by_one(ctx.model, [lambda item=item: logits(item) for item in old.train.pieces])
    assert_near(found, expected)
    assert not found["score.weight"][[1, 3]].any()


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_tasks_are_summed_and_samples_counted(gamma: float) -> None:
    ctx = stage(build("adaptation", "lora", rank=2))
    first, second = task("a"), task("b", 6)
    alone = [omega_of(remembered(ctx, each, batch_size=3)) for each in (first, second)]
    for name, value in omega_of(remembered(ctx, first, second, gamma=gamma)).items():
        torch.testing.assert_close(value, gamma * alone[0][name] + alone[1][name], rtol=1e-3, atol=1e-4)
    assert remembered(ctx, first, samples=2).report()["tasks"]["a"]["samples"] == 2


def test_an_objective_without_logits_is_refused_by_name() -> None:
    preference = build("objective", "preference")
    rows = [{"instruction": "a", "chosen": "b", "rejected": "c"}] * 2
    ctx = stage(build("adaptation", "lora", rank=2))
    with pytest.raises(UserError, match="the objective of `old` gives no logits") as told:
        remembered(ctx, toy_task(rows, preference, "old"))
    assert isinstance(told.value, ftk.FtkError)


def test_it_holds_what_plain_training_forgets() -> None:
    losses: dict[float, dict[str, float]] = {}
    start: dict[str, Tensor] = {}
    for strength in (0.0, 0.3):
        torch.manual_seed(0)
        old, new = task("old", rows=4), task("new", first=20, rows=4)
        if not start:
            ctx = stage(build("adaptation", "full"))
            train(ctx, old, 60)
            start = {name: tensor.clone() for name, tensor in ctx.adaptation.merge().state_dict().items()}
        model = toy_model()
        model.load_state_dict(start)
        ctx = stage(build("adaptation", "full"), model)
        train(ctx, new, 30, remembered(ctx, old, strength=strength))
        losses[strength] = {each.name: loss_of(ctx, each) for each in (old, new)}
    assert losses[0.3]["old"] < 0.8 * losses[0.0]["old"], losses
    assert losses[0.3]["new"] < 2.0, losses
