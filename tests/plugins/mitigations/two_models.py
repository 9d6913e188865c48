"""A model that has moved, a copy of its start beside it, and the divergence of the two by hand."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from ftk.data.batches import as_batch
from ftk.parts import Context, Loss
from ftk.testing import toy_context, toy_model, toy_rows, toy_task, toy_tokenizer
from tests.core.loops import build
from tests.mixers import mixer_of

ROWS = list(toy_rows(6))


def objective(name: str = "causal_lm", **options: Any) -> Any:
    return build("objective", name, **options)


def moved(adaptation: str, name: str = "causal_lm", **changes: Any) -> tuple[Context, nn.Module]:
    """A context whose model has moved away from its start, and a copy of the start."""
    made = objective(name)
    head = made.head.kind
    sizes = {"attention_probs_dropout_prob": 0.0} if head == "masked_lm" else {}
    model = toy_model(head=head, tie_word_embeddings=adaptation == "lora", **sizes)
    start = deepcopy(model)
    part = build("adaptation", adaptation, **({"rank": 4} if adaptation == "lora" else {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        attached = part.attach(model)
        with torch.no_grad():
            for parameter in attached.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    task = toy_task(ROWS, made, "new", processor=toy_tokenizer(head))
    earlier = [toy_task(ROWS[:4], made, "old", processor=toy_tokenizer(head))]
    processor = toy_tokenizer(head)
    return toy_context(attached, made, part, task, earlier, processor=processor, **changes), start


def drawn(ctx: Context, count: int = 4) -> tuple[Any, Loss]:
    """A batch of the stage's rows as the mixer draws it, and its loss in training mode."""
    assert ctx.task is not None
    rows = mixer_of(ctx.task.train.items, ctx.objective, [], 0).draw(0, count)
    batch = as_batch(ctx.objective, [item for _, item in rows])
    ctx.model.train()
    return batch, ctx.objective.loss(ctx.model, batch, ctx)


def by_hand(ctx: Context, start: nn.Module, batch: Any, temperature: float) -> Tensor:
    """``T² Σ KL(start ‖ model)`` at the targets, of two whole models."""
    inputs = {k: v for k, v in batch.inputs.items() if k in ("input_ids", "attention_mask", "decoder_input_ids")}
    shift = ctx.objective.shift
    labels = batch.inputs["labels"][:, shift:]
    if "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"] = inputs["decoder_input_ids"].clamp(min=0)
    with torch.no_grad():
        right = start(**inputs).logits
    said = ctx.model(**inputs).logits
    end = labels.shape[1]
    q = log_softmax(said[:, :end] / temperature, -1)[labels != -100]
    p = log_softmax(right[:, :end] / temperature, -1)[labels != -100]
    return temperature**2 * kl_div(q, p, reduction="sum", log_target=True)


def gradient(total: Tensor, model: nn.Module) -> Tensor:
    weights = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(total, weights, allow_unused=True, retain_graph=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(weights, found, strict=True)]
    )
