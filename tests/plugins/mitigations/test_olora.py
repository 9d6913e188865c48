"""`olora` against autograd of the paper's penalty, and what it keeps from stage to stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ftk
from ftk.events import RunEvent
from ftk.parts import Context
from ftk.recipe.reading import load_recipe
from ftk.testing import toy_context, toy_model
from tests.core.loops import build
from tests.plugins.mitigations.test_gpm import gpt2
from tests.system.small import written
from tests.two_tasks import run, stream


def adapted(model: nn.Module, stage: int, events: list[RunEvent] | None = None) -> Context:
    """A LoRA whose A and B are both drawn, as they are in the middle of a stage."""
    with torch.random.fork_rng():
        torch.manual_seed(stage)
        part = build("adaptation", "lora", rank=3)
        attached = part.attach(model)
        for name, parameter in attached.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter)
    return toy_context(attached, None, part, stage=stage, events=events)


def factors(ctx: Context) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by the name of the weight."""
    found = dict(ctx.model.named_parameters())
    return {
        name.removesuffix(".lora_A.default.weight"): (a, found[name.replace("lora_A", "lora_B")])
        for name, a in found.items()
        if name.endswith(".lora_A.default.weight")
    }


@pytest.mark.parametrize("make", [toy_model, gpt2], ids=["linear", "transposed"])
@pytest.mark.parametrize(("orthogonality", "l2"), [(0.5, 0.0), (0.2, 0.3), (0.0, 0.1)])
def test_the_gradient_is_autograds_of_the_papers_penalty(make: Any, orthogonality: float, l2: float) -> None:
    part, earlier = build("mitigation", "olora", orthogonality=orthogonality, l2=l2), []
    for stage in (1, 2):
        ctx = adapted(make(), stage)
        part.begin(ctx)
        part.finish(ctx)
        earlier.append({name: a.detach().clone() for name, (a, _) in factors(ctx).items()})
    ctx = adapted(make(), 3)
    part.begin(ctx)
    part.edit_gradients(ctx.gradients(), ctx)
    given = {name: (a.grad.clone(), b.grad.clone()) for name, (a, b) in factors(ctx).items()}
    ctx.model.zero_grad()
    penalty = torch.zeros(())
    for name, (a, b) in factors(ctx).items():
        for its in earlier:
            for row in its[name]:
                for own in a:
                    penalty = penalty + orthogonality * (row @ own) ** 2
        penalty = penalty + l2 * (a.square().sum() + b.square().sum())
    penalty.backward()
    for name, (a, b) in factors(ctx).items():
        torch.testing.assert_close(given[name][0], a.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(given[name][1], torch.zeros_like(b) if b.grad is None else b.grad)


def test_others_turn_the_weight_and_the_first_stage_has_nothing_to_keep_off() -> None:
    part, events = build("mitigation", "olora"), []
    ctx = adapted(toy_model(), 1, events)
    part.begin(ctx)
    part.edit_gradients(ctx.gradients(), ctx)
    assert all(float(a.grad.abs().sum()) == 0 for a, _ in factors(ctx).values())
    assert events == []
    part.finish(ctx)
    grads = []
    for factor in (1.0, 3.0):
        ctx = adapted(toy_model(), 2)
        part.knob.value = 0.5 * factor
        part.begin(ctx)
        part.edit_gradients(ctx.gradients(), ctx)
        grads.append(torch.cat([a.grad.flatten() for a, _ in factors(ctx).values()]))
    torch.testing.assert_close(3 * grads[0], grads[1])


def test_it_says_where_the_stages_before_kept_nothing() -> None:
    events: list[RunEvent] = []
    build("mitigation", "olora").begin(adapted(toy_model(), 2, events))
    (event,) = events
    assert "nothing to keep off" in event.data["text"]


def test_what_it_keeps_grows_with_the_stages_and_is_told() -> None:
    part = build("mitigation", "olora")
    for stage in (1, 2):
        ctx = adapted(toy_model(), stage)
        part.begin(ctx)
        part.finish(ctx)
    state, layers = part.state_dict(), len(factors(ctx))
    assert {len(its) for name, its in state.items() if name.startswith("earlier/")} == {6}
    assert part.report()["directions"] == 6 * layers
    inside = total = 0.0
    for name, (a, _) in factors(ctx).items():
        first = state[f"earlier/{name}.weight"][:3]
        inside += float((a.detach() @ torch.linalg.pinv(first) @ first).square().sum())
        total += float(a.detach().square().sum())
    assert part.report()["within"] == pytest.approx(inside / total, abs=1e-3)
    again = build("mitigation", "olora")
    again.load_state_dict(state)
    assert again.report() == part.report()
    with pytest.raises(ValueError, match="olora: a state has earlier adapters"):
        again.load_state_dict({"other": 1})


def test_adaptations_without_a_and_b_are_refused(tmp_path: Path) -> None:
    for adaptation in ('use = "full"', 'use = "dora"', 'use = "lora"\ninit = "milora"'):
        text = stream('[[stage.mitigation]]\nuse = "olora"', adaptation)
        with pytest.raises(ftk.RecipeError, match="`olora` needs low-rank"):
            load_recipe(written(tmp_path, text))


def test_the_second_stages_adapters_leave_the_firsts_directions(tmp_path: Path) -> None:
    within = {}
    for weight in (0.0, 0.5):
        table = f'[[mitigation]]\nuse = "olora"\northogonality = {weight}\n[[stage]]\nname = "capitals"'
        text = stream("", 'use = "lora"\nrank = 4', steps=40).replace('[[stage]]\nname = "capitals"', table)
        _, told = run(tmp_path, f"{weight}", text)
        within[weight] = told["olora"]["within"]
    assert within[0.5] < 0.1 * within[0.0]
