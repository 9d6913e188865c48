"""Which layers multiply their inputs, and what they are given, for methods that hold them to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftk_plugins.mitigations.gpm.inputs import Inputs
from ftk_plugins.mitigations.layers import kind_of


class Packed(nn.Linear):
    """A linear layer as those of few bits are: of that class, with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x * 1.0, self.weight)


KINDS: dict[str, tuple[nn.Module, str]] = {
    "linear": (nn.Linear(3, 2), "linear"),
    "of few bits": (Packed(3, 2, bias=False), "linear"),
    "transposed": (Conv1D(2, 3), "transposed"),
    "convolution": (nn.Conv2d(2, 3, 2), "conv"),
    "in groups": (nn.Conv2d(2, 2, 2, groups=2), ""),
    "padded by what is there": (nn.Conv2d(2, 3, 2, padding=1, padding_mode="reflect"), ""),
    "norm": (nn.LayerNorm(3), ""),
}


@pytest.mark.parametrize("case", KINDS)
def test_layers_are_known_by_what_they_do_with_their_inputs(case: str) -> None:
    module, kind = KINDS[case]
    assert kind_of(module) == kind


def test_a_convolution_is_given_patches() -> None:
    """Each of its outputs is a product of its weight and what is held of the inputs."""
    layer = nn.Conv2d(2, 3, (2, 3), stride=2, padding=1, dilation=1, bias=False)
    pictures = torch.randn(2, 2, 5, 6)
    inputs = Inputs(nn.Sequential(layer), {"w": layer.weight}, {})
    with inputs, torch.no_grad():
        expected = layer(pictures)
        inputs.passed()
        for _ in inputs.groups():
            layer(pictures)
            (moment,) = inputs.moments.values()
    patches = torch.nn.functional.unfold(pictures.double(), (2, 3), padding=1, stride=2).transpose(0, 1).flatten(1)
    torch.testing.assert_close(layer.weight.double().flatten(1) @ patches, expected.double().transpose(0, 1).flatten(1))
    torch.testing.assert_close(moment, patches @ patches.T, rtol=1e-5, atol=1e-5)
