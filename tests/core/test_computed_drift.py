"""The general drift against autograd in float64: any function from parameters to a weight, in any chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ftk.parts import ComputedDrift

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


def rescaled(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Rows that depend on their own row of ``left`` alone."""
    return base * (1 + left.tanh().sum(1, keepdim=True)) + left @ right


def normed(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Rows that depend on every row."""
    moved = base + left @ right
    return moved / torch.linalg.vector_norm(moved)


@pytest.fixture
def parts() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    base = nn.Parameter(torch.randn(6, 5), requires_grad=False)
    return base, nn.Parameter(0.3 * torch.randn(6, 2)), nn.Parameter(0.3 * torch.randn(2, 5))


@pytest.mark.parametrize(("function", "by_rows"), [(rescaled, True), (normed, False)])
def test_rows_and_chain_rule(
    parts: tuple[nn.Parameter, nn.Parameter, nn.Parameter], function: Function, by_rows: bool
) -> None:
    base, left, right = parts

    def effective(start: int, stop: int) -> Tensor:
        if by_rows:
            return function(base[start:stop], left[start:stop], right)
        return function(base, left, right)[start:stop]

    drift = ComputedDrift(base, effective, [left, right], by_rows=by_rows)
    wide = [tensor.detach().double().requires_grad_() for tensor in parts]
    whole = function(*wide)
    slope = torch.randn(6, 5)
    (whole * slope.double()).sum().backward()

    assert drift.weight is base
    rows = drift.rows(1, 4)
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    torch.testing.assert_close(rows, (whole - wide[0])[1:4].detach().float(), atol=1e-6, rtol=1e-5)
    left.grad = torch.ones_like(left)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        drift.pull_back(start, stop, slope[start:stop])
    torch.testing.assert_close(left.grad - 1, wide[1].grad.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(right.grad, wide[2].grad.float(), atol=1e-5, rtol=1e-5)
    assert base.grad is None


def test_what_can_only_be_computed_whole_comes_in_one_chunk(
    parts: tuple[nn.Parameter, nn.Parameter, nn.Parameter],
) -> None:
    base, left, _ = parts
    assert list(ComputedDrift(base, lambda i, j: base[i:j], [left]).chunks(10)) == [(0, 2), (2, 4), (4, 6)]
    assert list(ComputedDrift(base, lambda i, j: base[i:j], [left], by_rows=False).chunks(10)) == [(0, 6)]


def test_a_start_of_its_own_and_narrow_weights(parts: tuple[nn.Parameter, nn.Parameter, nn.Parameter]) -> None:
    base, left, right = parts
    narrow = nn.Parameter(base.detach().bfloat16(), requires_grad=False)
    start = narrow.float() + 1

    def effective(i: int, j: int) -> Tensor:
        return narrow[i:j].float() + left[i:j] @ right

    drift = ComputedDrift(narrow, effective, [left, right], start=start)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        rows = drift.rows(2, 5)
        drift.pull_back(2, 5, torch.ones(3, 5))
    torch.testing.assert_close(rows, (left @ right)[2:5].detach() - 1, atol=1e-6, rtol=0)
    torch.testing.assert_close(left.grad[2:5], right.sum(1).detach().expand(3, 2))
    assert left.grad[:2].abs().sum() == left.grad[5:].abs().sum() == 0


def test_frozen_parameters_are_left_alone(parts: tuple[nn.Parameter, nn.Parameter, nn.Parameter]) -> None:
    base, left, right = parts
    right.requires_grad_(False)
    ComputedDrift(base, lambda i, j: left[i:j] @ right, [left, right]).pull_back(0, 6, torch.ones(6, 5))
    assert right.grad is None
    assert left.grad is not None
