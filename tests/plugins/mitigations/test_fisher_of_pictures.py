"""The Fisher information of convolutions, against one row after the other."""

from __future__ import annotations

import pytest
import torch

from ftk.testing import toy_context, toy_task
from tests.plugins.mitigations.brute_force import all_weights, assert_same, estimate
from tests.points import ROWS, Pictures, convolutional


@pytest.mark.parametrize(("groups", "told"), [(1, 0), (2, 1)], ids=["by batch", "by row"])
def test_it_is_that_of_rows_alone(groups: int, told: int) -> None:
    """Convolutions in groups are not told apart by row in a batch: each row is taken alone, and that is told."""
    model, objective, events = convolutional(groups), Pictures(), []
    task = toy_task(ROWS, objective)
    found = estimate(model, all_weights(model), task, events=events)
    expected = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for item in task.train.encoded:
        loss = objective.loss(model, objective.collate([item]), toy_context(model, objective)).total
        for name, gradient in zip(expected, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            expected[name] += gradient**2 / len(ROWS)
    assert_same(found.parts, expected)
    assert len([event for event in events if event.kind == "warning"]) == told
