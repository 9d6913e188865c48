"""The mean of those task vectors that agree with an elected sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def agreed_mean(vectors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """TIES' second and third step: at each entry the sign of the weighed sum, and the mean of those that have it.

    Args:
        vectors: of one shape; they are overwritten.
        shares: how much each counts.

    Returns:
        ``Σ wᵢτᵢ / Σ wᵢ`` over the vectors of the elected sign, at each entry; 0 where there is none.
    """
    for vector, share in zip(vectors, shares, strict=True):
        if share != 1:
            vector.mul_(share)
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total.add_(vector)
    sign = torch.where(total >= 0, 1.0, -1.0)
    total.zero_()
    divisor = torch.zeros_like(total)
    for vector, share in zip(vectors, shares, strict=True):
        vector.mul_(sign).clamp_(min=0)  # what is left has the sign, and all of it is positive
        total.add_(vector)
        divisor.add_(vector.sign_(), alpha=share)
    divisor.masked_fill_(divisor == 0, 1)
    return total.div_(divisor).mul_(sign)
