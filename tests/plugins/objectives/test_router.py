"""Mixtures of experts: the balancing loss, against transformers' own, and where it counts; the experts' Fisher."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from ftk import UserError
from ftk.testing import toy_context, toy_examples, toy_model, toy_task, toy_tokenizer
from ftk_plugins.mitigations.ewc.fisher import Estimate, estimate_fisher
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from ftk_plugins.objectives.router import balance

SIZES = {
    "vocab_size": 260, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "num_experts_per_tok": 2, "pad_token_id": 0,
    "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip
KINDS = {
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 4}),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig, {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8}),
    "gpt_oss": (GptOssForCausalLM, GptOssConfig, {"num_local_experts": 4, "head_dim": 8}),
}
ROWS = [{"text": text} for text in ("The sea is wide.", "Salt.", "The river runs down to the sea.", "Rain")]
CTX = toy_context(torch.nn.Linear(1, 1), None)


@cache
def model(kind: str = "mixtral") -> Any:
    build, config, experts = KINDS[kind]
    torch.manual_seed(0)
    made = build(config(**{**SIZES, **experts}))
    with torch.no_grad():  # routers that prefer some experts, so that there is something to balance
        for name, weight in made.named_parameters():
            if name.endswith(("gate.weight", "router.weight")):
                weight.normal_(0, 0.5)
    return made


def make(**options: Any) -> CausalLM:
    return CausalLM(CausalLMOptions(max_length=64, **options))


def batch_of(part: CausalLM) -> Any:
    return part.collate(list(toy_examples(ROWS, part).items))


def total(kind: str, training: bool = True, ctx: Any = CTX, **options: Any) -> torch.Tensor:
    part = make(**options)
    made = model(kind).train(training)
    try:
        return part.loss(made, batch_of(part), ctx).total
    finally:
        made.eval()


def test_the_balance_is_that_of_transformers_layer_by_layer() -> None:
    torch.manual_seed(1)
    logits = tuple(torch.randn(40, 6) * 2 for _ in range(3))
    counted = torch.rand(40) < 0.6
    for mask in (None, counted):
        attention = None if mask is None else mask[None].long()
        each = [load_balancing_loss_func((layer,), 6, 2, attention) for layer in logits]
        torch.testing.assert_close(balance(logits, 2, mask), torch.stack(each).mean())
    even = torch.eye(6).repeat(4, 1)
    assert balance([even + 0.01 * even.roll(1, 1)], 2).item() == pytest.approx(2.0), "evenly shared it is top_k"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_added_for_each_target_and_padding_does_not_count(kind: str) -> None:
    part, made = make(), model(kind)
    batch = batch_of(part)
    mask = torch.zeros_like(batch.inputs["input_ids"])
    for row, length in enumerate(batch.lengths):
        mask[row, :length] = 1
    with torch.no_grad():
        logits = made(input_ids=batch.inputs["input_ids"], output_router_logits=True).router_logits
    each = [load_balancing_loss_func((layer,), 4, 2, mask) for layer in logits]
    plain = total(kind, router_loss=0.0)
    for weight in (0.5, None):
        added = (0.001 if weight is None else weight) * batch.count * torch.stack(each).mean()
        torch.testing.assert_close(total(kind, router_loss=weight), plain + added)
    torch.testing.assert_close(total(kind, training=False, router_loss=0.5), plain, msg="what is measured is without")
    torch.testing.assert_close(
        total(kind, ctx=toy_context(made, None, loss_chunks=3), router_loss=0.5), total(kind, router_loss=0.5)
    )


def test_packed_rows_are_shared_out_as_if_alone() -> None:
    torch.testing.assert_close(total("mixtral", router_loss=0.5, packing=True), total("mixtral", router_loss=0.5))


def test_training_with_it_evens_the_experts_out() -> None:
    def unevenness(weight: float) -> float:
        part, made = make(router_loss=weight), model()
        before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        batch, optimizer = batch_of(part), torch.optim.Adam(made.parameters(), lr=3e-3)
        made.train()
        for _ in range(40):
            (part.loss(made, batch, CTX).total / batch.count).backward()
            optimizer.step()
            optimizer.zero_grad()
        made.eval()
        with torch.no_grad():
            logits = made(input_ids=batch.inputs["input_ids"], output_router_logits=True).router_logits
        made.load_state_dict(before)
        return balance(logits, 2).item()

    with_it, without = unevenness(0.5), unevenness(0.0)
    assert with_it - 2 < 0.5 * (without - 2), "2 is the least"


@pytest.mark.parametrize("training", [False, True])
def test_a_weight_for_a_model_without_experts_is_refused(training: bool) -> None:
    part = make(router_loss=0.01)
    with pytest.raises(UserError, match=r"objective\.router_loss: LlamaForCausalLM has no router"):
        part.loss(toy_model().train(training), batch_of(part), CTX)
    batch = batch_of(part)
    torch.testing.assert_close(
        make().loss(toy_model().train(), batch, CTX).total, make(router_loss=0.0).loss(toy_model(), batch, CTX).total
    )


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_the_fisher_information_covers_the_experts(kind: str) -> None:
    part, made = make(), model(kind)
    task = toy_task(ROWS, part, processor=toy_tokenizer())
    weights = dict(made.named_parameters())
    experts = [name for name in weights if "experts" in name]
    assert {weights[name].ndim for name in experts} >= {3}
    found = estimate_fisher(
        task, toy_context(made, part, task=task), weights, Estimate(samples=len(ROWS), batch_size=3)
    )
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for item in task.train.items:
        ids = torch.from_numpy(item["input_ids"]).long()[None]
        logits = made(input_ids=ids).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").backward()
        for name, weight in weights.items():
            expected[name] += weight.grad**2 / len(ROWS) if weight.grad is not None else 0
        made.zero_grad()
    for name in weights:
        torch.testing.assert_close(found.parts[name], expected[name], rtol=1e-3, atol=1e-5)
    assert all(found.parts[name].sum() > 0 for name in experts)
