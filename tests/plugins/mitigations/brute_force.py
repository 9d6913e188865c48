"""Toy models and the Fisher information by brute force: one backward pass per row, squared, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from ftk.parts import Task
from ftk.testing.toys import toy_context, toy_model, toy_task
from ftk_plugins.mitigations.ewc.fisher import Estimate, Fisher, estimate_fisher
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


def estimate(model: nn.Module, weights: Mapping[str, Tensor], task: Task | None = None, **changes: Any) -> Fisher:
    told = {"samples": 500, "batch_size": 3}
    ctx_changes = {key: changes.pop(key) for key in list(changes) if key not in Estimate.__dataclass_fields__}
    task = task or text_task()
    ctx = toy_context(model, task.objective, task=task, **ctx_changes)
    return estimate_fisher(task, ctx, weights, Estimate(**{**told, **changes}))


def brute_force(model: nn.Module, weights: Mapping[str, Tensor], texts: list[str] = TEXTS) -> dict[str, Tensor]:
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


def assert_told_apart(model: nn.Module, task: Task, loss: Callable[[Any], Tensor]) -> None:
    """The batched estimate over all rows of a task is the mean of each row's squared gradients, without a warning."""
    events: list[Any] = []
    found = estimate(model, all_weights(model), task, events=events)
    squares = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for row in task.train.rows:
        for name, gradient in zip(squares, torch.autograd.grad(loss(row), list(model.parameters())), strict=True):
            squares[name] += gradient**2 / len(task.train)
    # The bias of attention's keys moves no score: its gradient is zero but for rounding.
    squares = {name: square for name, square in squares.items() if not name.endswith("key.bias")}
    assert_same({name: found.parts[name] for name in squares}, squares, 1e-4)
    assert not [event for event in events if event.kind == "warning"], "the batched way was not taken"
