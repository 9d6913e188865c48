"""One embedding of a text from a model's hidden states."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor


def pooled(outputs: Any, mask: Tensor, how: Literal["mean", "cls", "last"]) -> Tensor:
    """The embeddings of texts padded on the right, ``(texts, dim) float32``.

    Args:
        outputs: of an encoder, with ``last_hidden_state (texts, time, dim)``.
        mask: ``(texts, time) int64``, 0 on padding.
        how: ``mean`` over the tokens, the first token's (``cls``) or the ``last`` token's.
    """
    states: Tensor = outputs.last_hidden_state.float()
    if how == "mean":
        kept = mask[..., None].float()
        found = (states * kept).sum(1) / kept.sum(1)
    else:
        places = mask.sum(1) - 1 if how == "last" else torch.zeros_like(mask[:, 0])
        found = states[torch.arange(len(states), device=states.device), places]
    unused = getattr(outputs, "pooler_output", None)
    # Every process must have a gradient for every weight that is trained, those behind a pooler too: it is zero.
    return found if unused is None else found + 0.0 * unused.float().sum()
