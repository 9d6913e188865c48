"""The loss of predicting tokens: a model's logits at the targets, their summed loss, and draws from them."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Loss

IGNORED = -100
"""The label of a token that is no target."""


def token_loss(model: nn.Module, batch: Batch) -> Loss:
    """The negative log-likelihood of all targets, summed in float32, as :meth:`TokenObjective.loss` documents it."""
    logits, labels = target_logits(model, batch)
    log_probabilities = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    total = -log_probabilities.gather(1, labels[:, None]).sum()
    return Loss(total, batch.count, {"logits": logits, "labels": labels})


@torch.no_grad()
def draw_targets(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """Each target replaced by a draw from the model's softmax there; the tokens that are read stay."""
    logits, _ = target_logits(model, batch)
    cumulative = torch.softmax(logits, dim=-1, dtype=torch.float32).cumsum(dim=-1)
    uniform = torch.rand(len(logits), 1, generator=generator, device=generator.device).to(logits.device)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    labels = batch.inputs["labels"].clone()
    targets = labels[:, 1:]
    targets[targets != IGNORED] = drawn.squeeze(1).clamp(max=logits.shape[-1] - 1)
    return replace(batch, inputs={**batch.inputs, "labels": labels})


def target_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The logits that predict the targets, and the targets.

    Only positions at which some row of the batch has a target go through the output layer, where the model
    can leave the others out.

    Returns:
        logits: ``(targets, vocab)`` in the model's dtype, with their graph.
        labels: ``(targets,) int64``.

    Raises:
        UserError: the rows are packed and the model cannot keep packed rows apart.
    """
    inputs, targets = batch.inputs, batch.inputs["labels"][:, 1:]
    rows, time = inputs["input_ids"].shape
    is_target = targets != IGNORED
    columns = is_target.any(dim=0).nonzero().squeeze(1)
    # Counted from the end, so that they also hold where an adaptation puts virtual tokens before the row.
    from_end = columns - time
    base = _base_model(model)
    packed = "position_ids" in inputs
    if packed and "position_ids" not in _forward_parameters(base.__class__):
        raise UserError(
            f"{type(base).__name__} takes no position ids and so cannot keep packed rows apart",
            "set `packing = false`",
        )
    arguments: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "position_ids") if name in inputs}
    if packed and "flash" in str(getattr(base.config, "_attn_implementation", "")):
        # Flash attention sees where packed rows begin only in a batch of one row.
        arguments = {name: tensor.reshape(1, -1) for name, tensor in arguments.items()}
        ends = torch.arange(1 - rows, 1, device=from_end.device) * time
        logits = _logits(model, base, arguments, (ends[:, None] + from_end).flatten())
        logits = logits.view(rows, len(columns), -1)
    else:
        logits = _logits(model, base, arguments, from_end)
    kept_targets, kept = targets[:, columns], is_target[:, columns]
    # Most often every kept position of every row is a target; the copy is only made where it saves something.
    if kept.all():
        return logits.flatten(0, 1), kept_targets.flatten()
    return logits[kept], kept_targets[kept]


def _base_model(model: nn.Module) -> Any:
    """The model whose forward names its parameters, under any wrapper and adapter."""
    base: Any = model
    while isinstance(base, nn.parallel.DistributedDataParallel) or hasattr(base, "_orig_mod"):
        base = base.module if isinstance(base, nn.parallel.DistributedDataParallel) else base._orig_mod
    return base.get_base_model() if hasattr(base, "get_base_model") else base


@lru_cache
def _forward_parameters(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]


def _logits(model: nn.Module, base: Any, arguments: dict[str, Any], columns: Tensor) -> Tensor:
    """The logits ``(rows, columns, vocab)`` at these positions; the only ones computed if the model can."""
    accepted = _forward_parameters(base.__class__)
    if "use_cache" in accepted:
        arguments = {**arguments, "use_cache": False}
    if "logits_to_keep" in accepted:
        logits: Tensor = model(**arguments, logits_to_keep=columns).logits
        return logits
    logits = model(**arguments).logits[:, columns]
    return logits
