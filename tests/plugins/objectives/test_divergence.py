"""The divergences between a teacher and a student by their definitions, and what a temperature does to gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ftk_plugins.objectives.divergence import divergence
from tests.plugins.objectives.taught import KINDS, apart


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_each_divergence_is_its_definition(kind: Any, temperature: float) -> None:
    student, teacher = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)) * 3
    found = divergence(student, teacher, temperature, kind)
    expected = [apart(q, p, kind, temperature) for q, p in zip(student.numpy(), teacher.numpy(), strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)
    assert divergence(student, student, temperature, kind).abs().max() < 1e-5
    assert float(divergence(student, teacher, 1.0, "jensen_shannon").max()) <= math.log(2)


def test_gradients_are_of_one_size_whatever_the_temperature() -> None:
    student, teacher = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
    student.requires_grad_()
    slopes = {}
    for temperature in (1.0, 50.0):
        (found,) = torch.autograd.grad(divergence(student, teacher, temperature).sum(), student)
        q, p = (torch.softmax(logits / temperature, -1) for logits in (student, teacher))
        torch.testing.assert_close(found, temperature * (q - p), rtol=1e-4, atol=1e-5)
        slopes[temperature] = float(found.detach().norm())
    centred = (student - student.mean(1, True)) - (teacher - teacher.mean(1, True))
    assert slopes[50.0] == pytest.approx(float(centred.detach().norm()) / 9, rel=0.05), "Hinton et al., eq. 4"
    assert 0.5 < slopes[1.0] / slopes[50.0] < 2
