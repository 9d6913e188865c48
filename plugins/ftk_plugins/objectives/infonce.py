"""The contrastive loss of a set of rows: each finds its own counterpart among those of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def infonce(similarities: Tensor, alike: Tensor, more: Tensor | None = None) -> Tensor:
    """``−log(exp s[i,i] / Σ_j exp s[i,j])`` of each row ``i`` (van den Oord et al. 2018, eq. 4), ``(rows,) float32``.

    Args:
        similarities: ``(rows, rows) float32``, of each row with the counterpart of each, divided by the temperature.
        alike: ``(rows, rows) bool``, which counterparts are right for a row beside its own, and so are no negatives.
        more: ``(rows, any) float32`` similarities with further negatives; -inf: none there.
    """
    others = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    candidates = similarities.masked_fill(others, -torch.inf)
    if more is not None:
        candidates = torch.cat([candidates, more], dim=1)
    return candidates.logsumexp(1) - similarities.diagonal()


def alike(identities: Tensor) -> Tensor:
    """Which rows share their anchor or their counterpart, ``(rows, rows) bool``, of ``identities (rows, 2)``."""
    return (identities[:, None] == identities[None]).any(2)


def identity(array: np.ndarray) -> int:
    """A number for what an array holds, the same for equal ones: 63 bits of a hash."""
    told = f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1


def identities(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    """:func:`identity` of both sides of each row, ``(rows, 2) int64``."""
    return torch.tensor([[identity(one), identity(other)] for one, other in pairs], dtype=torch.int64)
