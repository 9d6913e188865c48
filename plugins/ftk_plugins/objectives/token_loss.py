"""The loss of predicting tokens: a model's logits at the targets, their summed loss, and draws from them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Loss

from .chunked import chunked_cross_entropy
from .output_layer import Tap, Unsuitable, is_watched, output_layer, tap_of

IGNORED = -100
"""The label of a token that is no target."""


AUTO_LOGITS = 1 << 25
"""How many logits are made at a time where the recipe does not say: 128 MiB in float32."""


def token_loss(model: nn.Module, batch: Batch, ctx: Context) -> Loss:
    """What :meth:`TokenObjective.loss` says."""
    smoothing = ctx.label_smoothing if model.training else 0.0
    tap, chunks = _chunking(model, batch, ctx)
    if tap is None:
        logits, labels = target_logits(model, batch)
        log_probabilities = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        nats = -log_probabilities.gather(1, labels[:, None]).sum()
        if smoothing:
            nats = torch.lerp(nats, -log_probabilities.mean(dim=-1).sum(), smoothing)
        return Loss(nats, batch.count, {"logits": logits, "labels": labels})
    hidden, labels = _at_targets(model, batch, tap)
    total = chunked_cross_entropy(
        hidden, tap.layer.weight, tap.layer.bias, labels, chunks=chunks, curve=tap.curve, smoothing=smoothing
    )
    return Loss(total, batch.count, LateLogits(tap, hidden, labels))


class LateLogits(Mapping[str, Tensor]):
    """``labels``, and ``logits`` that are made when they are asked for, in the precision of the pass before."""

    def __init__(self, tap: Tap, hidden: Tensor, labels: Tensor) -> None:
        self._tap, self._hidden = tap, hidden
        self._made = {"labels": labels}
        device = hidden.device.type
        enabled = torch.is_autocast_enabled(device)
        self._autocast = partial(torch.autocast, device, torch.get_autocast_dtype(device), enabled)

    def __getitem__(self, name: str) -> Tensor:
        if name == "logits" and name not in self._made:
            with self._autocast():
                self._made[name] = self._tap.logits(self._hidden)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("logits", "labels"))

    def __len__(self) -> int:
        return 2


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
    return _at_targets(model, batch)


def _chunking(model: nn.Module, batch: Batch, ctx: Context) -> tuple[Tap | None, int]:
    """The tap on the output layer and the number of chunks; no tap where all logits are made at once.

    Raises:
        UserError: the recipe asks for chunks, and the model's logits cannot be made outside its forward pass.
    """
    base = _base_model(model)
    layer = output_layer(base)
    # A pass that is only made together with other processes counts nothing, and has logits all the same.
    count = batch.count or batch.inputs["labels"].numel()
    if ctx.loss_chunks is None:
        vocab = len(getattr(layer, "weight", ()))
        chunks = -(-count * vocab // AUTO_LOGITS)
    else:
        chunks = min(ctx.loss_chunks, count)
    if chunks <= 1 or is_watched(model, base, layer):
        return None, 1
    try:
        return tap_of(base, partial(_trial, base, batch.inputs["input_ids"])), chunks
    except Unsuitable as reason:
        if ctx.loss_chunks is None:
            return None, 1
        raise UserError(
            f"the loss of {type(base).__name__} cannot be computed in chunks: {reason}",
            "leave out training.loss_chunks",
        ) from None


def _trial(base: Any, ids: Tensor) -> Tensor:
    """The logits of one token, by a pass of the bare model: no wrapper, hook or compiled form of it is run."""
    return _logits(base.forward, base, {"input_ids": ids[:1, :1]}, torch.tensor([-1], device=ids.device))


def _at_targets(model: nn.Module, batch: Batch, tap: Tap | None = None) -> tuple[Tensor, Tensor]:
    """As :func:`target_logits`; where a tap is given, hidden states ``(targets, width)`` in place of logits."""
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
        logits = _logits(model, base, arguments, (ends[:, None] + from_end).flatten(), tap)
        logits = logits.view(rows, len(columns), -1)
    else:
        logits = _logits(model, base, arguments, from_end, tap)
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


def _logits(model: nn.Module, base: Any, arguments: dict[str, Any], columns: Tensor, tap: Tap | None = None) -> Tensor:
    """The logits ``(rows, columns, vocab)`` at these positions; the only ones computed if the model can.

    Where a tap is given: the hidden states ``(rows, columns, width)`` there.
    """
    accepted = _forward_parameters(base.__class__)
    if "use_cache" in accepted:
        arguments = {**arguments, "use_cache": False}
    chosen = "logits_to_keep" in accepted
    if chosen:
        arguments = {**arguments, "logits_to_keep": columns}
    with tap.opened() if tap else nullcontext():
        output: Tensor = model(**arguments).logits
    if tap:
        output = tap.take()
    return output if chosen else output[:, columns]
