"""Inner products of gradients with each other, divided among processes or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import own_rows


def products(gradients: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The inner products of each two over all weights, ``(n, n) float64``, on the device of the first weight.

    Of weights that are divided among the processes each adds what it holds, in one exchange.

    Args:
        gradients: for each of the same weights a tensor of the same shape.
    """
    sums = torch.zeros(2, len(gradients), len(gradients), dtype=torch.float64)
    divided = False
    for place, name in enumerate(gradients[0]):
        found = product([its[name] for its in gradients])
        sums = found.new_zeros(sums.shape) if place == 0 else sums
        is_divided = isinstance(gradients[0][name], DTensor)
        sums[int(is_divided)] += found.to(sums.device)
        divided = divided or is_divided
    if divided:
        torch.distributed.all_reduce(sums[1])
    return sums.sum(0)


def product(gradients: Sequence[Tensor]) -> Tensor:
    """The same over one weight, of which each process takes the rows it holds."""
    flat = torch.stack([own_rows(gradient)[0].flatten().float() for gradient in gradients])
    return (flat @ flat.T).double()
