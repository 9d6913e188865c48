"""Perplexity, against rows taken one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ftk import Interrupted, RunFailed, UserError
from ftk.parts import Loss, Task
from ftk.testing import toy_context, toy_examples, toy_model, toy_task, toy_tokenizer
from ftk_plugins.evaluators.perplexity.options import PerplexityOptions
from ftk_plugins.evaluators.perplexity.perplexity import Perplexity
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from tests.plugins.evaluators.talk import ROWS, Talk


def measure(model: Any, task: Task, batch_size: int | None = None, **context: Any) -> float:
    ctx = toy_context(model, task.objective, **context)
    with torch.no_grad():
        (metric,) = Perplexity(PerplexityOptions(batch_size=batch_size)).measure(model, task, ctx)
    assert metric.name == "perplexity"
    assert not metric.higher_is_better
    return metric.value


def one_by_one(model: Any, rows: list[dict[str, Any]]) -> float:
    """The definition, from the model's probabilities alone."""
    tokenizer, nats, tokens = toy_tokenizer(), 0.0, 0
    for row in rows:
        prompt = tokenizer(row["instruction"])["input_ids"]
        ids = prompt + tokenizer(row["output"])["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            probabilities = model(input_ids=torch.tensor([ids])).logits[0].double().softmax(-1)
        for place in range(len(prompt), len(ids)):
            nats -= math.log(probabilities[place - 1, ids[place]])
            tokens += 1
    return math.exp(nats / tokens)


@pytest.mark.parametrize("chunks", [1, 3])
def test_the_interval_is_that_of_rows_drawn_anew(chunks: int) -> None:
    model, objective = toy_model(seed=3), CausalLM(CausalLMOptions(text="instruction"))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that rows differ
    texts = [{"instruction": "".join(chr(97 + (row * place) % 26) for place in range(3 + row))} for row in range(12)]
    ctx = toy_context(model, objective, loss_chunks=chunks)
    with torch.no_grad():
        (metric,) = Perplexity(PerplexityOptions()).measure(model, toy_task(texts, objective), ctx)
    nats, targets = [], []
    for text in texts:
        ids = [*toy_tokenizer()(text["instruction"])["input_ids"], 1]
        with torch.no_grad():
            likely = model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        nats.append(-float(likely[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum()))
        targets.append(len(ids) - 1)
    drawn = np.random.default_rng(7).integers(12, size=(4000, 12))
    means = np.array(nats)[drawn].sum(1) / np.array(targets)[drawn].sum(1)
    interval = metric.interval()
    assert interval is not None
    assert np.log(interval) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.1 * means.std())
    assert interval[0] < metric.value < interval[1]


def test_a_loss_that_tells_no_row_s_part_has_no_interval() -> None:
    class Sum(Talk):
        def loss(self, model: Any, batch: Any, ctx: Any) -> Loss:
            found = super().loss(model, batch, ctx)
            return Loss(found.total, found.count)

    model = toy_model()
    (metric,) = Perplexity(PerplexityOptions()).measure(model, toy_task(ROWS, Sum()), toy_context(model, Sum()))
    assert metric.interval() is None


@pytest.mark.parametrize("batch_size", [None, 1, 2, 100])
def test_every_token_counts_alike_whatever_the_batch(batch_size: int | None) -> None:
    model = toy_model(seed=3)
    assert measure(model, toy_task(ROWS, Talk()), batch_size) == pytest.approx(one_by_one(model, ROWS), rel=1e-5)


def test_batches_are_as_large_as_training_s_by_default() -> None:
    model, sizes = toy_model(), []
    model.register_forward_pre_hook(lambda _, __, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True)
    measure(model, toy_task(ROWS, Talk()), micro_batch_size=2)
    measure(model, toy_task(ROWS, Talk()), 3, micro_batch_size=2)
    assert sizes == [2, 2, 1, 3, 2]


def test_it_computes_in_the_precision_of_the_run() -> None:
    model, seen = toy_model(), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    measure(model, toy_task(ROWS, Talk()), 100, precision="bf16")
    measure(model, toy_task(ROWS, Talk()), 100)
    assert seen == [True, False]


def test_processes_share_the_rows_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = toy_model(seed=3), toy_task(ROWS, Talk())
    sums: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda found, own: found.__setitem__(0, own))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: sums.append(tensor.clone()))
    for rank in range(2):
        measure(model, task, 2, rank=rank, world_size=2)
    nats, tokens = torch.stack(sums).sum(0).tolist()
    assert tokens == sum(len(toy_tokenizer()(row["output"])["input_ids"]) + 1 for row in ROWS)
    assert math.exp(nats / tokens) == pytest.approx(one_by_one(model, ROWS), rel=1e-5)


def test_a_model_that_has_diverged_fails_the_run() -> None:
    model = toy_model()
    model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(RunFailed, match="task `toy`: the model's loss on toy is nan"):
        measure(model, toy_task(ROWS, Talk()))


def test_rows_without_a_target_are_an_error_that_names_their_place() -> None:
    class Silent(Talk):
        def encode(self, row: Any, processor: Any) -> Any:
            features = super().encode(row, processor)
            return {**features, "labels": features["labels"] * 0 - 100}

    with pytest.raises(UserError, match="toy: no row has a token to predict"):
        measure(toy_model(), toy_task(ROWS, Silent()))


def test_a_task_without_test_rows_is_an_error() -> None:
    task = Task("toy", Talk(), toy_examples(ROWS, Talk()))
    with pytest.raises(UserError, match="task `toy` has no test rows"):
        measure(toy_model(), task)


def test_it_can_be_interrupted_between_batches() -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        measure(toy_model(), toy_task(ROWS, Talk()), check_interrupt=stop)
