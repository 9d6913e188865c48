"""Two mitigations that edit the same gradient act in the order of the recipe, as docs/recipes.md tells it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ftk.parts import Mitigation
from ftk.running.composition import Composition
from ftk.testing import toy_context, toy_model, toy_rows, toy_task
from tests.core.loops import build

OBJECTIVE = build("objective", "causal_lm", packing=False)


def flat(gradients: Any) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def pulled_and_projected(first: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `ewc` and `agem` leave in this order, with the loss's gradient, the pull, and the reference."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adaptation = build("adaptation", "full")
        model = adaptation.attach(toy_model())
        task = toy_task(list(toy_rows(4)), OBJECTIVE, "old")
        ctx = toy_context(model, OBJECTIVE, adaptation, task, [task])
        ewc, agem = build("mitigation", "ewc", strength=50.0), build("mitigation", "agem")
        parts: dict[str, Mitigation] = {"ewc": ewc, "agem": agem}
        parts["ewc"].remember(task, ctx)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        for part in parts.values():
            part.begin(ctx)
        reference = {name: torch.randn_like(p) for name, p in model.named_parameters()}
        own = {name: torch.randn_like(p) - 0.2 * reference[name] for name, p in model.named_parameters()}
    gradients = ctx.gradients()

    def put(values: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            parameter.grad = values[name].clone()

    put({name: torch.zeros_like(its) for name, its in own.items()})
    Composition({"ewc": parts["ewc"]}).edit_gradients(gradients, ctx)
    pull = flat(gradients).clone()
    gradients.restart()
    put(reference)
    gradients.keep("agem/old")
    put(own)
    order = ("ewc", "agem") if first == "ewc" else ("agem", "ewc")
    Composition({name: parts[name] for name in order}).edit_gradients(gradients, ctx)
    return flat(gradients), flat(own), pull, flat(reference)


def projected(vector: Tensor, reference: Tensor) -> Tensor:
    inner = vector @ reference
    return vector - inner.clamp(max=0) / (reference @ reference) * reference


def test_a_pull_before_a_projection_is_projected_too_and_one_behind_it_stays_whole() -> None:
    found, own, pull, reference = pulled_and_projected("ewc")
    assert pull.norm() > 0
    torch.testing.assert_close(found, projected(own + pull, reference), rtol=1e-3, atol=1e-4)
    behind, own, pull, reference = pulled_and_projected("agem")
    torch.testing.assert_close(behind, projected(own, reference) + pull, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, behind, atol=1e-3)


@pytest.mark.parametrize("order", [("pcgrad", "gpm"), ("gpm", "pcgrad")])
def test_last_of_all_nothing_passes_gpm_and_behind_it_something_may(order: tuple[str, str]) -> None:
    """Two sources in conflict: PCGrad's difference is brought in before or after the old directions are taken out."""
    torch.manual_seed(0)
    adaptation = build("adaptation", "full")
    model = adaptation.attach(toy_model(hidden_size=64, tie_word_embeddings=False))
    task = toy_task([{"text": "abcd"}], OBJECTIVE, "old")
    ctx = toy_context(model, OBJECTIVE, adaptation, task, [task])
    gpm, pcgrad = build("mitigation", "gpm", threshold=1.0), build("mitigation", "pcgrad")
    parts: dict[str, Mitigation] = {"gpm": gpm, "pcgrad": pcgrad}
    gpm.remember(task, ctx)
    gpm.begin(ctx)
    name = "model.layers.0.self_attn.q_proj.weight"
    state = gpm.state_dict()
    basis = state["basis/" + state["basis_of"][name]]
    gradients, given = ctx.gradients(), []
    for sign in (1.0, -1.0):
        for parameter in model.parameters():
            parameter.grad = sign * torch.ones_like(parameter) + 0.5 * torch.randn_like(parameter)
        given.append(model.get_parameter(name).grad.clone())
        gradients.set_aside("train" if sign > 0 else "replay/old")
    gradients.join()
    Composition({each: parts[each] for each in order}).edit_gradients(gradients, ctx)
    within = float((gradients[name] @ basis).norm() / gradients[name].norm())
    assert (within < 1e-5) == (order[-1] == "gpm")
    assert pcgrad.report()["conflicts"] == 1
