"""The loss that keeps the experts of a mixture about equally busy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftk import UserError
from ftk.parts import Batch

from .model_inputs import forward_parameters

ROUTER_LOSS = 0.001
"""The weight where the recipe gives none: that of the published configurations of Mixtral, Qwen and OLMoE."""


def router_weight(base: Any, chosen: float | None) -> float:
    """The weight of the balancing loss of this model; 0 where it has no router.

    Raises:
        UserError: the recipe gives a weight, and the model has no router that tells its choices.
    """
    tells = "output_router_logits" in forward_parameters(base.__class__)
    if tells and getattr(base.config, "num_experts_per_tok", None) and not base.config.is_encoder_decoder:
        return ROUTER_LOSS if chosen is None else chosen
    if chosen:
        raise UserError(
            f"objective.router_loss: {type(base).__name__} has no router that tells how it shares tokens out",
            "leave it out",
        )
    return 0.0


def balance(router_logits: Sequence[Tensor], top_k: int, counted: Tensor | None = None) -> Tensor:
    """How unevenly tokens are shared out: ``experts · Σ f_e · p_e``, the mean over layers, scalar float32.

    ``f_e`` are the assignments to expert e for each token, ``p_e`` is the mean probability that the router gives it
    (Fedus et al. 2022, equations 4 to 6). Evenly shared it is ``top_k``, and more otherwise. Each layer is taken by
    itself, so that an expert that is idle in one layer is not made up for by another.

    Args:
        router_logits: of each layer ``(tokens, experts)``, with their graph.
        top_k: experts that each token goes to.
        counted: which tokens count, ``(tokens,) bool``; None: all.
    """
    totals = []
    for logits in router_logits:
        probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
        chosen = torch.zeros_like(probabilities).scatter_(1, probabilities.topk(top_k, dim=-1).indices, 1.0)
        share = torch.ones(len(logits), device=logits.device) if counted is None else counted.to(probabilities)
        share = share / share.sum().clamp(min=1)
        totals.append(logits.shape[1] * ((share @ chosen) * (share @ probabilities)).sum())
    return torch.stack(totals).mean()


def tokens_that_count(batch: Batch, tokens: int) -> Tensor | None:
    """Which of the tokens that a model has read are not padding, ``(tokens,) bool``; None: all.

    What an adaptation puts before each row counts.
    """
    ids = batch.inputs["input_ids"]
    if batch.lengths is None:
        return None
    before = tokens // len(ids) - ids.shape[1]
    ends = torch.tensor(batch.lengths, device=ids.device) + before
    counted: Tensor = torch.arange(before + ids.shape[1], device=ids.device) < ends[:, None]
    return counted.flatten()
