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
    total, *others = products_by_weight(gradients).values()
    for each in others:
        total += each.to(total.device)
    return total


def products_by_weight(gradients: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The same over each weight by itself, on its device."""
    found = {name: _product([its[name] for its in gradients]) for name in gradients[0]}
    divided = [name for name, gradient in gradients[0].items() if isinstance(gradient, DTensor)]
    if divided:
        together = torch.stack([found[name] for name in divided])
        torch.distributed.all_reduce(together)
        found |= dict(zip(divided, together, strict=True))
    return found


def _product(gradients: Sequence[Tensor]) -> Tensor:
    """Over one weight, of which each process takes the rows it holds."""
    flat = torch.stack([own_rows(gradient)[0].flatten().float() for gradient in gradients])
    return (flat @ flat.T).double()
