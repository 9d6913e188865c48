"""What a model predicts at the targets of a batch, and how far one in training is from what another said there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Head, Objective, evaluated
from ftk_plugins.objectives.divergence import Divergence, as_pairs, divergence
from ftk_plugins.objectives.token_loss import IGNORED, logits_by_piece
from ftk_plugins.objectives.tokens import TokenObjective

Apart = Callable[[Tensor, slice], Tensor]
"""How far logits are from what they are held against, ``(piece,) float32`` with their graph: of the logits at some of
the targets ``(piece, classes)`` and of which targets these are."""

SEVERAL = "multi_label_classification"
"""What a head is for whose labels are each a yes or no of its own."""

TEXTS = ("causal_lm", "masked_lm", "sequence_classification", "token_classification")
"""Heads that can be asked about any text."""


def logits_of(objective: Objective, model: nn.Module, batch: Batch, ctx: Context) -> Callable[[slice], Tensor]:
    """What a model that is not trained predicts at some of the targets of a batch; of tokens, made when it is asked."""
    with torch.no_grad(), ctx.autocast():
        if isinstance(objective, TokenObjective):
            return logits_by_piece(model, batch, ctx, objective.shift)
        outputs = objective.loss(model, batch, ctx).outputs
        if "logits" not in outputs:
            raise UserError(
                f"an objective whose loss tells no logits ({type(objective).__name__}) has no predictions to keep",
                "leave its task out: name the others in the mitigation's `tasks`",
            )
        return outputs["logits"].__getitem__


def live(
    objective: Objective,
    batch: Batch,
    ctx: Context,
    temperature: float = 1.0,
    kind: Divergence = "forward_kl",
    known: Sequence[int] | None = None,
) -> Apart:
    """Holds logits against those of the stage's starting model on the same batch, which goes through it once.

    Args:
        objective: reads the batch.
        batch: the rows.
        ctx: its model is that of the objective's head, and its adaptation can refer.
        temperature: see :func:`~ftk_plugins.objectives.divergence.divergence`.
        kind: likewise.
        known: the classes that are compared; None: all.
    """
    with _reference(ctx), evaluated(ctx.model):
        taught = logits_of(objective, ctx.model, batch, ctx)

    def apart(logits: Tensor, piece: slice) -> Tensor:
        with _reference(ctx):
            right = taught(piece)
        return of_head(objective.head, logits, right, temperature, kind, known)

    return apart


def of_head(
    head: Head,
    logits: Tensor,
    right: Tensor,
    temperature: float,
    kind: Divergence,
    known: Sequence[int] | None = None,
) -> Tensor:
    """The divergence of logits ``(targets, classes)``; of several labels in one row the mean over them."""
    if known is not None:
        logits, right = logits[:, list(known)], right[:, list(known)]
    if head.problem == SEVERAL:
        return divergence(as_pairs(logits), as_pairs(right), temperature, kind).mean(1)
    return divergence(logits, right, temperature, kind)


def rows_of_targets(objective: Objective, batch: Batch) -> Tensor:
    """Which row of the batch each line of logits is of, ``(targets,) int64``."""
    labels = batch.inputs.get("labels")
    if labels is not None and isinstance(objective, TokenObjective):
        return (labels[:, objective.shift :] != IGNORED).nonzero()[:, 0]
    if labels is not None and objective.head.kind == "token_classification":
        return (labels != IGNORED).nonzero()[:, 0]
    first = next(iter(batch.inputs.values()))
    return torch.arange(len(first), device=first.device)


def can_read(head: Head, other: Head) -> bool:
    """Whether rows that are made for ``other`` can be given to the model of ``head``."""
    texts = (*TEXTS, "seq2seq_lm", "encoder")
    return (head.kind in TEXTS and other.kind in texts) or head.kind == other.kind == "image_classification"


def as_read_by(objective: Objective, batch: Batch) -> Batch:
    """The rows of a batch for another objective of one of the :data:`TEXTS`, or of images.

    The targets are what the model is asked about and mean nothing: a row, where the head has labels of rows; else
    every token.
    """
    head, labels = objective.head, batch.inputs.get("labels")
    if head.kind == "image_classification":
        pixels = batch.inputs["pixel_values"]
        return Batch(
            {"pixel_values": pixels, "labels": pixels.new_zeros(len(pixels), dtype=torch.long)}, len(pixels), 0
        )
    ids = batch.inputs["input_ids"]
    mask = batch.inputs.get("attention_mask")
    if mask is None or mask.ndim != 2:
        mask = torch.ones_like(ids)
        for row, length in enumerate(batch.lengths or ()):
            mask[row, length:] = 0
    inputs: dict[str, Tensor] = {
        name: batch.inputs[name] for name in ("position_ids", "token_type_ids") if name in batch.inputs
    }
    inputs |= {"input_ids": ids, "attention_mask": mask}
    if head.kind == "sequence_classification":
        one = head.problem == "single_label_classification"
        labels = ids.new_zeros((len(ids), 1 if one else len(head.labels)))
    elif head.kind == "token_classification":
        labels = ids.new_zeros(ids.shape).masked_fill(mask == 0, IGNORED)
    else:
        labels = ids.masked_fill(mask == 0, IGNORED)
    return replace(batch, inputs={**inputs, "labels": labels}, count=len(ids))


def can_refer(ctx: Context) -> bool:
    """Whether the adaptation can go back to the stage's start."""
    assert ctx.adaptation is not None
    try:
        with ctx.adaptation.reference():
            return True
    except UserError:
        return False


@contextmanager
def _reference(ctx: Context) -> Iterator[None]:
    """Within it the model is the stage's starting model, in the precision of training and without a graph."""
    assert ctx.adaptation is not None
    # Around it training may have kept casts of the weights as they are now, which stand for others here.
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad(), ctx.adaptation.reference(), ctx.autocast():
            yield
    finally:
        torch.set_autocast_cache_enabled(kept)
