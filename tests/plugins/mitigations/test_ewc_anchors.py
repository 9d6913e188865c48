"""An anchor for each task: the pull is that of every task's own penalty, through stages that merge in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftk.parts import Adaptation, Context
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from tests.plugins.mitigations.ewc_stage import fisher_of, pulled, remembered, stage, task, wander

STRENGTH = 70.0
"""Well above the rounding of the gradients that pulls are added to."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def full() -> Adaptation:
    return FullTuning(FullOptions())


def lora() -> Adaptation:
    return Lora(LoraOptions(rank=2, targets=("q_proj", "up_proj"), init="pissa"))


class Course:
    """Stages one after the other, with one task remembered at the start of each."""

    def __init__(self, **options: Any) -> None:
        self.options = {"strength": STRENGTH, "anchors": "separate", **options}
        self.model: nn.Module = toy_model()
        self.state: dict[str, Any] = {}
        self.anchors: list[dict[str, Tensor]] = []
        self.fishers: list[dict[str, Tensor]] = []

    def stage(self, adaptation: Adaptation) -> tuple[Ewc, Context]:
        number = len(self.anchors) + 1
        self.anchors.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        ctx = stage(adaptation, self.model, stage=number)
        new = task(f"task {number}", 6 * number)
        alone = {**self.options, "anchors": "online"}
        self.fishers.append(fisher_of(remembered(ctx, new, **alone)))
        ewc = Ewc(EwcOptions.model_validate(self.options))
        ewc.load_state_dict(self.state)
        ewc.remember(new, ctx)
        ewc.begin(ctx)
        wander(ctx.model)
        self.state = ewc.state_dict()
        return ewc, ctx

    def end(self, ctx: Context) -> None:
        assert ctx.adaptation is not None
        self.model = ctx.adaptation.merge()


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("last", [full, lora], ids=["full", "lora"])
def test_each_task_is_held_where_it_was_learned(last: Any, gamma: float) -> None:
    course = Course(gamma=gamma)
    for adaptation in (full(), lora()):
        _, ctx = course.stage(adaptation)
        course.end(ctx)
    ewc, ctx = course.stage(last())
    plain = {n: p for n, p in ctx.model.named_parameters() if p.requires_grad}
    now = {name: p for name, p in plain.items() if name in course.anchors[0]}
    for name, module in ctx.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            moves = sum(module.get_delta_weight(each) for each in module.active_adapters)
            now[f"{name}.weight"] = module.get_base_layer().weight + moves
    penalty = torch.zeros(())
    for number, (anchor, fisher) in enumerate(zip(course.anchors, course.fishers, strict=True)):
        weight = STRENGTH / 2 * gamma ** (2 - number)
        for name, f in fisher.items():
            if name in now:
                penalty = penalty + weight * (f * (now[name] - anchor[name]) ** 2).sum()
    expected = torch.autograd.grad(penalty, list(plain.values()))
    found = pulled(ewc, ctx)
    for name, pull in zip(plain, expected, strict=True):
        assert float((found[name] - pull).norm() / pull.norm()) < 1e-4, name
    size = sum(f.numel() for f in fisher_of(ewc).values())
    memory = sum(v.numel() for k, v in ewc.state_dict().items() if k.startswith(("lean/", "start/")))
    assert memory <= 2 * size  # not more for three tasks than for two
    online = Ewc(EwcOptions.model_validate({**course.options, "anchors": "online"}))
    online.load_state_dict({key: v for key, v in course.state.items() if not key.startswith(("lean/", "start/"))})
    online.begin(ctx)
    assert any((pulled(online, ctx)[name] - found[name]).norm() > 0.1 * found[name].norm() for name in plain)


@pytest.mark.parametrize("kind", ["factored", "kfac"])
def test_factors_lean_too(kind: str) -> None:
    course = Course(fisher=kind)
    _, ctx = course.stage(full())
    course.end(ctx)
    ewc, ctx = course.stage(full())
    found, checked = pulled(ewc, ctx), 0
    for name, parameter in ctx.model.named_parameters():
        if name + "/rows" in course.fishers[0]:
            drift = (parameter.detach() - course.anchors[1][name]).double()
            moved = (course.anchors[1][name] - course.anchors[0][name]).double()
            both = [{side: each[f"{name}/{side}"].double() for side in ("rows", "columns")} for each in course.fishers]
            total = {side: both[0][side] + both[1][side] for side in both[0]}
            pull = STRENGTH * (times(total, drift) + times(both[0], moved))
            assert float((found[name] - pull).norm() / pull.norm()) < 1e-4, name
            checked += 1
    assert checked >= 14


def times(factors: dict[str, Tensor], moved: Tensor) -> Tensor:
    rows, columns = (torch.diag(each) if each.ndim == 1 else each for each in factors.values())
    return rows @ moved @ columns / rows.trace()


def test_a_stage_that_resumes_leans_as_before() -> None:
    course = Course()
    _, ctx = course.stage(full())
    course.end(ctx)
    ewc, ctx = course.stage(full())
    back = Ewc(EwcOptions.model_validate(course.options))
    back.load_state_dict(ewc.state_dict())
    back.begin(ctx)
    pulls = []
    for each in (ewc, back):
        torch.manual_seed(1)
        pulls.append(pulled(each, ctx))
    assert all(torch.equal(pulls[1][name], value) for name, value in pulls[0].items())
