"""The log-likelihood of a text after another, under a model that reads from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ftk import UserError
from ftk.parts import Batch, Context, batches_of_process, gathered
from ftk_plugins.objectives.token_loss import IGNORED, sums_of_rows, target_logits
from ftk_plugins.objectives.tokens import Codec

Pair = tuple[list[int], list[int]]
"""The token ids of a context, at least one, and of what follows it, at least one."""


def encode_pairs(texts: Sequence[tuple[str, str]], processor: Any) -> list[Pair]:
    """The token ids of contexts and of what follows them.

    Both are read as one text, as they would stand in one: what follows are the tokens after as many as the context has
    alone. Spaces at the end of a context are counted to what follows, for most tokenizers join them with the next word.
    A text without a context follows the token that begins texts.

    Raises:
        UserError: what follows adds no token; or the tokenizer has no token to begin an empty context with.
    """
    codec = Codec(processor)
    parted = []
    for context, following in texts:
        kept = context.rstrip()
        parted.append((kept, context[len(kept) :] + following))
    codec = codec.knowing([text for kept, following in parted for text in (kept, kept + following)])
    pairs = []
    for kept, following in parted:
        begun = [*codec.start, *codec.ids(kept)] or _beginning(processor)
        ids = codec.ids(kept + following)[len(codec.ids(kept)) :]
        if not ids:
            raise UserError(
                f"{following!r:.60} adds no token to the text before it, so there is nothing to score",
                "change `template` or `separator`, so that a new word begins",
            )
        pairs.append((begun, ids))
    return pairs


def log_likelihoods(pairs: Sequence[Pair], model: nn.Module, ctx: Context, batch_size: int) -> np.ndarray:
    """``log p(following | context)`` in nats, summed in float32: ``(pairs,) float64``, the same in every process.

    A pair that is longer than the model's positions loses the beginning of its context.

    Args:
        pairs: of :func:`encode_pairs`.
        model: in ``eval`` mode.
        ctx: the device, the precision, and this process's share of the pairs.
        batch_size: pairs in one pass.

    Raises:
        UserError: what follows a context is longer than the model's positions.
    """
    room = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    for _, ids in pairs:
        if room is not None and len(ids) > room:
            raise UserError(f"a choice of {len(ids)} tokens does not fit the model's {room} positions", "shorten it")
    lengths = [len(context) + len(ids) for context, ids in pairs]
    own: list[tuple[int, float]] = []
    for indices, counts in batches_of_process(lengths, batch_size, ctx):
        batch = _collate([pairs[index] for index in indices], room).to(ctx.device)
        with torch.no_grad(), ctx.autocast():
            # Labels stand at the token before their own already, so that the last token need not be read.
            logits, labels = target_logits(model, batch, shift=0)
            nats = cross_entropy(logits.float(), labels, reduction="none")
        if counts:
            sums = sums_of_rows(nats, batch.inputs["labels"] != IGNORED)
            own += zip(indices, (-sums).tolist(), strict=True)
    found = np.empty(len(pairs))
    for index, value in gathered(own, ctx):
        found[index] = value
    return found


def _collate(pairs: Sequence[Pair], room: int | None) -> Batch:
    """Pad on the right; a label is the token that comes next, where that is scored."""
    rows = []
    for context, ids in pairs:
        whole = [*context, *ids]
        read, following = whole[:-1], [*[IGNORED] * (len(context) - 1), *ids]
        rows.append((read[-room:], following[-room:]) if room is not None else (read, following))
    lengths = [len(read) for read, _ in rows]
    input_ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    labels = torch.full_like(input_ids, IGNORED)
    for row, (read, following) in enumerate(rows):
        input_ids[row, : len(read)] = torch.tensor(read)
        labels[row, : len(read)] = torch.tensor(following)
    return Batch({"input_ids": input_ids, "labels": labels}, int((labels != IGNORED).sum()), sum(lengths), lengths)


def _beginning(processor: Any) -> list[int]:
    """The token that stands before a text that nothing comes before."""
    for token in (processor.bos_token_id, processor.eos_token_id):
        if token is not None:
            return [token]
    raise UserError(
        "the prompt is empty, and the tokenizer has no token that begins or ends a text", "give `template` some text"
    )
