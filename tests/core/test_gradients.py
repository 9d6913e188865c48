"""Gradients: the view of a step that mitigations edit."""

import pytest
import torch
from torch import nn

from ftk.parts import Gradients


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].bias.requires_grad_(False)
    net(torch.ones(5, 3)).pow(2).sum().backward()
    return net


def test_it_holds_exactly_the_trainable_parameters():
    gradients = Gradients(model())
    assert list(gradients) == ["0.weight", "1.weight", "1.bias"]
    assert len(gradients) == 3


def test_editing_in_place_is_what_the_optimizer_sees():
    net = model()
    Gradients(net)["1.bias"].fill_(7)
    assert net[1].bias.grad.tolist() == [7, 7]


def test_a_parameter_without_a_gradient_has_zeros():
    net = nn.Linear(2, 2)
    assert Gradients(net)["weight"].abs().sum() == 0
    assert net.weight.grad is not None


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_equals_the_formula(limit):
    net = model()
    before = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    norm = Gradients(net).clip_(limit)
    after = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    assert norm == pytest.approx(before.norm().item())
    torch.testing.assert_close(after, before * min(1, limit / before.norm().item()), rtol=1e-5, atol=1e-6)


def test_zero_means_no_clipping():
    net = model()
    before = net[0].weight.grad.clone()
    Gradients(net).clip_(0)
    assert torch.equal(net[0].weight.grad, before)
