"""Heads that are trained beside the live one: of an adaptation's drift, reference, scale and state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ftk.processes.several import SeveralHeads
from tests.core.loops import build


@pytest.fixture
def made() -> tuple[SeveralHeads, nn.Module, dict[str, nn.Parameter]]:
    """A live model under full tuning, and another head's weights, as attached."""
    torch.manual_seed(0)
    model, head = nn.Linear(3, 2), nn.Linear(2, 2)
    for parameter in head.parameters():
        parameter.requires_grad_(False)
    beside = {f"other:{name}": parameter for name, parameter in head.named_parameters()}
    adaptation = SeveralHeads(build("adaptation", "full"), beside)
    adaptation.attach(model)
    return adaptation, model, beside


def moved(made: tuple[SeveralHeads, nn.Module, dict[str, nn.Parameter]]) -> dict[str, torch.Tensor]:
    """Every weight moved by one of its own numbers; how it was before."""
    _, model, beside = made
    weights = {**dict(model.named_parameters()), **beside}
    before = {name: parameter.detach().clone() for name, parameter in weights.items()}
    with torch.no_grad():
        for number, parameter in enumerate(weights.values(), start=1):
            parameter += 0.1 * number
    return before


def test_they_are_trained_and_rest_again(made) -> None:
    adaptation, model, beside = made
    trained = [p for group in adaptation.param_groups(model, 0.5) for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in (*model.parameters(), *beside.values())}
    decayed = [
        p for group in adaptation.param_groups(model, 0.5) if "weight_decay" not in group for p in group["params"]
    ]
    assert [p.ndim for p in decayed] == [2, 2]
    assert all(p.requires_grad for p in beside.values())
    assert adaptation.merge() is model
    assert not any(p.requires_grad for p in beside.values())


def test_drift_is_how_far_they_have_moved_and_pulls_reach_them(made) -> None:
    adaptation, _, beside = made
    before = moved(made)
    drift = adaptation.drift()
    assert drift.keys() == before.keys()
    for name, parameter in beside.items():
        assert drift[name].weight is parameter
        torch.testing.assert_close(drift[name].rows(0, len(parameter)), parameter.detach() - before[name])
        drift[name].pull_back(0, len(parameter), torch.ones_like(parameter))
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_the_reference_and_every_share_hold_for_them(made) -> None:
    adaptation, _, beside = made
    before = moved(made)
    after = {name: parameter.detach().clone() for name, parameter in beside.items()}
    with adaptation.reference():
        assert all(torch.equal(parameter, before[name]) for name, parameter in beside.items())
    assert all(torch.equal(parameter, after[name]) for name, parameter in beside.items())
    for alpha in (0.25, 0.0, 1.0):
        adaptation.scale(alpha)
        for name, parameter in beside.items():
            torch.testing.assert_close(parameter.detach(), before[name] + alpha * (after[name] - before[name]))


def test_the_state_has_them(made) -> None:
    adaptation, model, beside = made
    before = moved(made)
    state = {name: value.clone() for name, value in adaptation.state_dict().items()}
    with torch.no_grad():
        for parameter in (*model.parameters(), *beside.values()):
            parameter.zero_()
    adaptation.load_state_dict(state)
    assert all(float((parameter - before[name]).min()) > 0 for name, parameter in beside.items())
    del state["beside/other:bias"]
    with pytest.raises(ValueError, match="the heads have other:weight, other:bias, the state other:weight"):
        adaptation.load_state_dict(state)
