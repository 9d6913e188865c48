"""The loss of predicting tokens: a model's logits at the targets, their summed loss, and draws from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Loss

from .chunked import Beside, chunked_cross_entropy
from .drawing import draw_classes
from .model_inputs import attention_of, base_model, forward_parameters, model_arguments, without_values
from .output_layer import Tap, Unsuitable, is_watched, output_layer, tap_of
from .router import balance, router_weight, tokens_that_count

IGNORED = -100
"""The label of a token that is no target."""

AUTO_LOGITS = 1 << 25
"""How many logits are made at a time where the recipe does not say: 128 MiB in float32."""


def token_loss(
    model: nn.Module,
    batch: Batch,
    ctx: Context,
    shift: int = 1,
    router_loss: float | None = None,
    beside: Beside | None = None,
) -> Loss:
    """What :meth:`TokenObjective.loss` says.

    Args:
        model: the model, wrapped or not.
        batch: what :meth:`TokenObjective.collate` made.
        ctx: the moment.
        shift: the logits at a position predict the label so many positions later.
        router_loss: the weight of the balancing loss of a mixture of experts; None: the usual one.
        beside: what takes a share of the cross-entropy's place.
    """
    smoothing = ctx.label_smoothing if model.training else 0.0
    weight = router_weight(base_model(model), router_loss)
    routed: list[Tensor] | None = [] if weight and model.training else None
    loss = _token_loss(model, batch, ctx, shift, smoothing, routed, beside)
    if not routed:
        return loss
    counted = tokens_that_count(batch, len(routed[0]))
    # A sum over targets, as the rest of it: the step's loss is then the mean of the two.
    extra = weight * loss.count * balance(routed, base_model(model).config.num_experts_per_tok, counted)
    return replace(loss, total=loss.total + extra)


def _token_loss(
    model: nn.Module,
    batch: Batch,
    ctx: Context,
    shift: int,
    smoothing: float,
    routed: list[Tensor] | None,
    beside: Beside | None,
) -> Loss:
    """The loss at the targets; what the routers said is put into ``routed``."""
    tap, chunks = _chunking(model, batch, ctx)
    hidden, labels = _at_targets(model, batch, shift, tap, routed)
    plain = not model.training and beside is None
    each = torch.empty(len(labels), dtype=torch.float32, device=labels.device) if plain else None
    if chunks == 1:
        logits = hidden if tap is None else tap.logits(hidden)
        log_probabilities = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        chosen = log_probabilities.gather(1, labels[:, None])
        nats = -chosen.sum()
        if each is not None:
            each = -chosen.detach()[:, 0]
        if smoothing:
            nats = torch.lerp(nats, -log_probabilities.mean(dim=-1).sum(), smoothing)
        if beside is not None:
            nats = torch.lerp(nats, beside.losses(logits, slice(None)).sum(), beside.share)
        return Loss(nats, batch.count, {"logits": logits, "labels": labels, **_by_row(each, batch, shift)})
    assert tap is not None
    total = chunked_cross_entropy(
        hidden, tap.layer.weight, tap.layer.bias, labels,
        chunks=chunks, curve=tap.curve, smoothing=smoothing, beside=beside, each=each,
    )  # fmt: skip
    made = {"labels": labels, **_by_row(each, batch, shift)}
    return Loss(total, batch.count, LateLogits(tap, hidden, made, chunks))


def _by_row(each: Tensor | None, batch: Batch, shift: int) -> dict[str, Tensor]:
    """The part of each row in a loss that is measured: ``row_nats`` float32 and ``row_targets`` int64, ``(rows,)``."""
    if each is None:
        return {}
    is_target = batch.inputs["labels"][:, shift:] != IGNORED
    return {"row_nats": sums_of_rows(each, is_target), "row_targets": is_target.sum(1)}


class LateLogits(Mapping[str, Tensor]):
    """What is there, and ``logits`` that are made when they are asked for, in the precision of the pass before."""

    def __init__(self, tap: Tap, hidden: Tensor, made: Mapping[str, Tensor], chunks: int = 1) -> None:
        self._tap, self._hidden, self._chunks = tap, hidden, chunks
        self._made = dict(made)
        device = hidden.device.type
        enabled = torch.is_autocast_enabled(device)
        self._autocast = partial(torch.autocast, device, torch.get_autocast_dtype(device), enabled)

    def __getitem__(self, name: str) -> Tensor:
        if name == "logits" and name not in self._made:
            self._made[name] = self.at(slice(None))
        return self._made[name]

    def at(self, piece: slice) -> Tensor:
        """The logits of some of the targets, not kept."""
        with self._autocast():
            return self._tap.logits(self._hidden[piece])

    def summed(self, losses: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """What :func:`sum_of_logits` says, with a piece of the logits at a time."""
        layer, curve = self._tap.layer, self._tap.curve
        with self._autocast():
            return chunked_cross_entropy(
                self._hidden, layer.weight, layer.bias, self._made["labels"],
                chunks=self._chunks, curve=curve, beside=Beside(1.0, losses),
            )  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(("logits", *self._made)))

    def __len__(self) -> int:
        return len(list(iter(self)))


def sum_of_logits(outputs: Mapping[str, Tensor], losses: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """A loss beside the objective's own, of the logits that it told: summed over the targets, with its graph.

    Where the objective computed its loss in chunks, so is this one.

    Args:
        outputs: of the objective's loss.
        losses: of the logits at some of the targets ``(piece, classes)`` and of which targets these are, their losses
            ``(piece,) float32``.
    """
    if isinstance(outputs, LateLogits):
        return outputs.summed(losses)
    return losses(outputs["logits"], slice(None)).sum()


@torch.no_grad()
def logits_by_piece(model: nn.Module, batch: Batch, ctx: Context, shift: int = 1) -> Callable[[slice], Tensor]:
    """What a model that is not trained predicts at some of the targets; made when it is asked for, as the loss is."""
    tap, _ = _chunking(model, batch, ctx)
    hidden, labels = _at_targets(model, batch, shift, tap)
    return hidden.__getitem__ if tap is None else LateLogits(tap, hidden, {"labels": labels}).at


@torch.no_grad()
def draw_targets(model: nn.Module, batch: Batch, generator: torch.Generator, shift: int = 1) -> Batch:
    """Each target replaced by a draw from the model's softmax there; the tokens that are read stay."""
    logits, _ = target_logits(model, batch, shift)
    labels = batch.inputs["labels"].clone()
    targets = labels[:, shift:]
    targets[targets != IGNORED] = draw_classes(logits, generator)
    return replace(batch, inputs={**batch.inputs, "labels": labels})


def target_logits(model: nn.Module, batch: Batch, shift: int = 1) -> tuple[Tensor, Tensor]:
    """The logits that predict the targets, and the targets.

    Only positions at which some row of the batch has a target go through the output layer, where the model
    can leave the others out.

    Returns:
        logits: ``(targets, vocab)`` in the model's dtype, with their graph.
        labels: ``(targets,) int64``.

    Raises:
        UserError: the rows are packed and the model cannot keep packed rows apart.
    """
    return _at_targets(model, batch, shift)


def sums_of_rows(nats: Tensor, is_target: Tensor) -> Tensor:
    """What the targets of each row add up to, ``(rows,)``.

    Args:
        nats: of all targets in the order of the batch, row by row, ``(targets,)``.
        is_target: where they are, ``(rows, time) bool``.
    """
    return nats.new_zeros(len(is_target)).index_add(0, is_target.nonzero()[:, 0], nats)


def _chunking(model: nn.Module, batch: Batch, ctx: Context) -> tuple[Tap | None, int]:
    """The tap on the output layer and the number of chunks; no tap where the model makes the logits.

    A model that cannot leave positions out has a tap for one chunk too, so that it makes those of the targets alone.

    Raises:
        UserError: the recipe asks for chunks, and the model's logits cannot be made outside its forward pass.
    """
    base = base_model(model)
    layer = output_layer(base)
    # A pass that is only made together with other processes counts nothing, and has logits all the same.
    count = batch.count or batch.inputs["labels"].numel()
    if ctx.loss_chunks is None:
        vocab = len(getattr(layer, "weight", ()))
        chunks = -(-count * vocab // AUTO_LOGITS)
    else:
        chunks = min(ctx.loss_chunks, count)
    chosen = ctx.loss_chunks is not None or "logits_to_keep" in forward_parameters(base.__class__)
    if (chunks <= 1 and (chosen or without_values(base))) or is_watched(model, base, layer):
        return None, 1
    try:
        return tap_of(base, partial(_trial, base, batch.inputs)), max(chunks, 1)
    except Unsuitable as reason:
        if ctx.loss_chunks is None:
            return None, 1
        raise UserError(
            f"the loss of {type(base).__name__} cannot be computed in chunks: {reason}",
            "leave out training.loss_chunks",
        ) from None


def _trial(base: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The logits of one token, by a pass of the bare model: no wrapper, hook or compiled form of it is run."""
    one = {name: inputs[name][:1, :1] for name in ("input_ids", "decoder_input_ids") if name in inputs}
    return _logits(base.forward, base, model_arguments(base, one, shift=1))


def _at_targets(
    model: nn.Module, batch: Batch, shift: int, tap: Tap | None = None, routed: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """As :func:`target_logits`; where a tap is given, hidden states ``(targets, width)`` in place of logits."""
    inputs, targets = batch.inputs, batch.inputs["labels"][:, shift:]
    rows, time = batch.inputs["labels"].shape
    is_target = targets != IGNORED
    columns = is_target.any(dim=0).nonzero().squeeze(1)
    # Counted from the end, so that they also hold where an adaptation puts virtual tokens before the row.
    from_end = columns - time
    base = base_model(model)
    arguments = model_arguments(base, inputs, shift)
    if shift and "position_ids" in inputs and "flash" in attention_of(base):
        # Flash attention sees where packed rows begin only in a batch of one row.
        arguments = {name: tensor.reshape(1, -1) for name, tensor in arguments.items()}
        ends = torch.arange(1 - rows, 1, device=from_end.device) * time
        logits = _logits(model, base, arguments, (ends[:, None] + from_end).flatten(), tap, routed)
        logits = logits.view(rows, len(columns), -1)
    else:
        logits = _logits(model, base, arguments, from_end, tap, routed)
    kept_targets, kept = targets[:, columns], is_target[:, columns]
    # Most often every kept position of every row is a target; the copy is only made where it saves something.
    if kept.all():
        return logits.flatten(0, 1), kept_targets.flatten()
    return logits[kept], kept_targets[kept]


def _logits(
    model: Callable[..., Any],
    base: Any,
    arguments: dict[str, Any],
    columns: Tensor | None = None,
    tap: Tap | None = None,
    routed: list[Tensor] | None = None,
) -> Tensor:
    """The logits ``(rows, columns, vocab)`` at these positions, or at all; the only ones computed if the model can.

    Where a tap is given: the hidden states ``(rows, columns, width)`` there.
    """
    accepted = forward_parameters(base.__class__)
    if "use_cache" in accepted:
        arguments = {**arguments, "use_cache": False}
    if routed is not None:
        arguments = {**arguments, "output_router_logits": True}
    chosen = columns is None or "logits_to_keep" in accepted
    if columns is not None and chosen:
        arguments = {**arguments, "logits_to_keep": columns}
    with tap.opened() if tap else nullcontext():
        outputs = model(**arguments)
    if routed is not None:
        routed += outputs.router_logits
    output: Tensor = tap.take() if tap else outputs.logits
    return output if chosen else output[:, columns]
