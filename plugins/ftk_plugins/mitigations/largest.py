"""The smallest of the largest entries of weights, whole or divided among processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor

from ftk.parts import own_rows

DIGITS = ((20, 11), (10, 10), (0, 10))
"""Where each digit of a float32's 31 bits without its sign begins, and of how many bits it is."""


def least_of_largest(groups: Iterable[Sequence[Tensor]], share: float) -> list[Tensor]:
    """Of each group the smallest of the ``ceil(share · n)`` largest of its ``n`` sizes, at least one: float32 scalars.

    A size is an absolute value in float32. Sizes are ordered as the bits that hold them are, so that the one that is
    looked for is found digit by digit, by counting, and exactly. Where weights are sharded every process calls this
    with the same groups; their counts are added up, in three exchanges, and no process sees others' entries.

    Args:
        groups: tensors that are ranked together, all of them sharded or none.
        share: above 0, 1 at most.
    """
    groups = [list(group) for group in groups]
    if not groups:
        return []
    if isinstance(groups[0][0], FakeTensor):  # in a plan there is nothing to count
        return [_bits(group[0]).sum().float() for group in groups]
    device = own_rows(groups[0][0])[0].device
    divided = any(isinstance(tensor, DTensor) for group in groups for tensor in group)
    numbers = [sum(tensor.numel() for tensor in group) for group in groups]
    # A share of 0.15 is a little more than that in binary.
    ranks = torch.tensor([max(1, math.ceil(share * number - 1e-9)) for number in numbers], device=device)
    found = torch.zeros(len(groups), dtype=torch.int32, device=device)
    left: list[list[Tensor]] = [[own_rows(tensor)[0].detach() for tensor in group] for group in groups]
    for shift, width in DIGITS:
        counts = torch.zeros(len(groups), 1 << width, dtype=torch.int64, device=device)
        for place, tensors in enumerate(left):
            for number, tensor in enumerate(tensors):
                bits = _bits(tensor)
                if shift + width < 31:  # of those that begin otherwise nothing is left to be counted
                    bits = tensors[number] = bits[bits >> (shift + width) == found[place].to(bits.device)]
                digits = (bits >> shift) & ((1 << width) - 1)
                counts[place] += torch.bincount(digits.flatten(), minlength=1 << width).to(device)
        if divided:
            torch.distributed.all_reduce(counts)
        downwards = counts.flip(1).cumsum(1)
        above = (downwards < ranks[:, None]).sum(1, keepdim=True)
        ranks = ranks - torch.where(above > 0, downwards.gather(1, (above - 1).clamp(min=0)), 0)[:, 0]
        found = (found << width) | ((1 << width) - 1 - above[:, 0]).int()
    return list(found.view(torch.float32))


def _bits(tensor: Tensor) -> Tensor:
    """Those of the sizes, int32; of what are such bits already the same."""
    return tensor if tensor.dtype == torch.int32 else tensor.abs().float().view(torch.int32)
