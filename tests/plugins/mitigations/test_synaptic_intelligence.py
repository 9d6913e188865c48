"""`synaptic_intelligence` against the paper's equations, kept step by step beside it without a hook or a drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftk.parts import Context, Gradients, Mitigation
from ftk.running.composition import Composition
from ftk.testing import toy_model
from ftk_plugins.mitigations.synaptic_intelligence.options import SynapticIntelligenceOptions
from ftk_plugins.mitigations.synaptic_intelligence.synaptic_intelligence import SynapticIntelligence
from ftk_plugins.mitigations.synaptic_intelligence.taps import Taps
from tests.core.loops import build
from tests.plugins.mitigations.ewc_stage import OBJECTIVE, gpt2, stage, task, wander
from tests.plugins.mitigations.test_l2sp import derived, effective
from tests.plugins.mitigations.test_l2sp import pulled as pulled_by

Making = Callable[[], nn.Module]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Doubles(Mitigation):
    """Another that edits: the path must not see it, and must see where it leads."""

    def edit_gradients(self, gradients: Gradients, ctx: Any) -> None:
        for gradient in gradients.values():
            gradient.mul_(2)


class Plain:
    """Equations 3 and 5 of the paper in float64, over a plain model that has the effective weights."""

    def __init__(self, make: Making) -> None:
        self.model = make()
        self.omega: dict[str, Tensor] = {}

    def gradients(self, weights: Mapping[str, Tensor], batch: Any, ctx: Context) -> dict[str, Tensor]:
        """By autograd, of a model whose weights are these."""
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                if name in named:
                    named[name].copy_(weight)
        self.model.zero_grad()
        (OBJECTIVE.loss(self.model, batch, ctx).total / batch.count).backward()
        return {name: parameter.grad.double() for name, parameter in named.items()}

    def step(self, gradients: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            moved = after[name].double() - before[name].double()
            self.omega[name] = self.omega.get(name, 0) - gradient * moved


ADAPTATIONS: dict[str, tuple[Making, str, dict[str, Any]]] = {
    "full": (toy_model, "full", {}),
    "partial": (gpt2, "partial", {"blocks": 1}),
    "lora": (toy_model, "lora", {"rank": 4}),
    "lora_nonzero_start": (gpt2, "lora", {"rank": 4, "init": "pissa"}),
    "lora_beside_whole": (toy_model, "lora", {"rank": 4, "targets": ["q_proj"], "modules_to_save": ["o_proj", "norm"]}),
    "adalora": (toy_model, "adalora", {"rank": 2}),
    "dora": (toy_model, "dora", {"rank": 4}),
    "ia3": (toy_model, "ia3", {"targets": "all-linear", "feedforward": ["down_proj"]}),
    "peft": (toy_model, "peft", {"method": "oft", "targets": ["mlp.*"]}),
}


@pytest.mark.parametrize(
    ("optimizer", "adaptation"),
    [*((torch.optim.AdamW, name) for name in ADAPTATIONS), (torch.optim.SGD, "full"), (torch.optim.SGD, "lora")],
)
def test_the_path_and_the_importances_are_the_paper_s(optimizer: Any, adaptation: str) -> None:
    make, use, options = ADAPTATIONS[adaptation]
    ctx = stage(build("adaptation", use, **options), make(), task=task("new"))
    damping = 1e-5
    part = SynapticIntelligence(SynapticIntelligenceOptions(damping=damping, normalise=False))
    walked(part, ctx, optimizer, (plain := Plain(make)))
    moved = {name: drift.rows(0, drift.shape[0]).double() for name, drift in ctx.adaptation.drift().items()}
    state = part.state_dict()
    path = {key.removeprefix("path/"): value for key, value in state.items() if key.startswith("path/")}
    assert path.keys() == moved.keys()
    size = max(float(plain.omega[name].abs().max()) for name in path)
    assert size > 1e-6
    for name, found in path.items():
        torch.testing.assert_close(found.double(), plain.omega[name].view_as(found), rtol=2e-3, atol=2e-4 * size)
    part.finish(ctx)
    learned = {k.removeprefix("learned/"): v for k, v in part.state_dict().items() if k.startswith("learned/")}
    expected = {name: (plain.omega[name] / (moved[name].square() + damping)).clamp(min=0) for name in moved}
    size = max(float(value.max()) for value in expected.values())
    for name, found in learned.items():
        torch.testing.assert_close(found.double(), expected[name], rtol=1e-2, atol=1e-3 * size)
    assert not [module for module in ctx.model.modules() if module._forward_hooks], "its hooks are gone"


def walked(part: Mitigation, ctx: Context, optimizer: Any, plain: Plain | None = None, steps: int = 4) -> None:
    """Train a few steps, in two micro-batches each, as the loop does."""
    together = Composition({"first": Doubles(), "si": part})
    together.begin(ctx)
    groups = ctx.adaptation.param_groups(ctx.model, 0.01)
    optim = optimizer(groups, lr=0.01)
    gradients, items = ctx.gradients(), ctx.task.train.items
    count = OBJECTIVE.collate(items).count
    for step in range(steps):
        here = replace(ctx, step=step)
        before = {name: weight.detach().clone() for name, weight in effective_of(ctx).items()}
        for some in (items[:4], items[4:]):
            batch = OBJECTIVE.collate(some)
            loss = OBJECTIVE.loss(ctx.model, batch, here)
            total = together.penalty(batch, loss, here)
            (total / count).backward()
        aside = OBJECTIVE.loss(ctx.model, batch, here).total  # rows that are not trained on
        torch.autograd.grad(aside, [p for p in ctx.model.parameters() if p.requires_grad], allow_unused=True)
        together.read_gradients(gradients, here)
        together.edit_gradients(gradients, here)
        optim.step()
        optim.zero_grad()
        together.after_step(here)
        if plain is not None:
            batch = OBJECTIVE.collate(items)
            found = plain.gradients(before, batch, here)
            plain.step({name: found[name] for name in ctx.adaptation.drift()}, before, effective_of(ctx))


def effective_of(ctx: Context) -> dict[str, Tensor]:
    """The weights by plain names with which the model computes; whole ones as they are, others by their drift."""
    found = {
        name.replace(".base_layer.", "."): parameter.detach()
        for name, parameter in ctx.model.named_parameters()
        if not any(word in name for word in (".lora_", ".ia3_", ".oft_"))
    }
    trained = {id(parameter) for parameter in ctx.model.parameters() if parameter.requires_grad}
    for name, drift in ctx.adaptation.drift().items():
        if id(drift.weight) not in trained:
            found[name] = found[name] + drift.rows(0, drift.shape[0])
    return found


def test_in_bfloat16_the_products_are_those_of_training() -> None:
    """The gradient of a weight in full tuning is what is heard of it under an adapter, in either precision."""
    found = {}
    for precision in ("fp32", "bf16"):
        ctx = replace(stage(build("adaptation", "lora", rank=4), task=task("new")), precision=precision)
        plain = toy_model()
        taps = Taps(ctx, ctx.adaptation.drift())
        batch = OBJECTIVE.collate(ctx.task.train.items)
        for model in (ctx.model, plain):
            with ctx.autocast():
                loss = OBJECTIVE.loss(model, batch, ctx).total
            taps.count()
            loss.backward()
        found[precision] = {name: taps.take(name, ctx, 1.0) for name in ctx.adaptation.drift()}
        taps.remove()
        for name, gradient in found[precision].items():
            expected = plain.get_parameter(name).grad
            error = float((gradient - expected).norm() / expected.norm())
            assert error < (1e-5 if precision == "fp32" else 2e-2), (precision, name, error)
    name = next(iter(found["fp32"]))
    assert not torch.allclose(found["bf16"][name], found["fp32"][name], rtol=1e-4)


def test_the_whole_path_is_what_the_loss_went_down_by() -> None:
    """The paper's equation 2, for steps that are small enough."""
    ctx = stage(build("adaptation", "full"), task=task("new"))
    part = SynapticIntelligence(SynapticIntelligenceOptions())
    part.begin(ctx)
    batch = OBJECTIVE.collate(ctx.task.train.items)
    losses = []
    optim = torch.optim.SGD(ctx.model.parameters(), lr=0.02)
    for step in range(20):
        loss = OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            part.read_gradients(ctx.gradients(), replace(ctx, step=step))
            optim.step()
            optim.zero_grad()
            part.after_step(ctx)
    last = (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).item()
    part.finish(ctx)
    assert part.report()["tasks"]["new"]["lowered"] == pytest.approx(losses[0] - last, rel=0.03)


def learned(ctx: Context, steps: int = 8, **options: Any) -> SynapticIntelligence:
    part = SynapticIntelligence(SynapticIntelligenceOptions(**options))
    walked(part, ctx, torch.optim.AdamW, steps=steps)
    part.finish(ctx)
    return part


def importances(part: SynapticIntelligence) -> dict[str, Tensor]:
    return {k.removeprefix("importance/"): v for k, v in part.state_dict().items() if k.startswith("importance/")}


@pytest.mark.parametrize("use", ["full", "lora"])
def test_a_later_stage_is_pulled_by_the_importances_of_those_before(use: str) -> None:
    first = stage(build("adaptation", "full"), task=task("old"))
    part = learned(first, strength=0.7, gamma=0.5)
    again = SynapticIntelligence(part.options)
    again.load_state_dict(part.state_dict())
    ctx = stage(build("adaptation", use), first.adaptation.merge(), task=task("new", 6), earlier=[first.task])
    again.begin(ctx)
    start = {name: weight.detach().clone() for name, weight in effective(ctx.model).items()}
    wander(ctx.model)
    omega, now = importances(again), effective(ctx.model)
    flat = torch.cat([value.flatten() for value in omega.values()])
    assert float(flat.mean()) == pytest.approx(1, rel=1e-4)
    assert float(flat.min()) >= 0
    penalty = sum(0.7 / 2 * (omega[n] * (now[n] - start[n]).square()).sum() for n in ctx.adaptation.drift())
    found, expected = pulled_by(again, ctx), derived(penalty, ctx.model)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    walked(again, ctx, torch.optim.AdamW)
    again.finish(ctx)
    new = {k.removeprefix("learned/"): v.clone() for k, v in again.state_dict().items() if k.startswith("learned/")}
    before = {name: value.clone() for name, value in omega.items()}
    again.begin(stage(build("adaptation", "full"), task=task("third", 12)))
    for name, value in importances(again).items():
        torch.testing.assert_close(value, 0.5 * before[name] + new.get(name, 0))
    assert list(again.report()["tasks"]) == ["old", "new"]


def test_what_was_learned_before_the_run_has_no_path_and_that_is_told() -> None:
    events: list[Any] = []
    ctx = stage(build("adaptation", "full"), events=events, earlier=[replace(task(), name="retain")])
    SynapticIntelligence(SynapticIntelligenceOptions()).begin(ctx)
    assert [event.data["text"] for event in events if event.kind == "warning"] == [
        "synaptic_intelligence: it has not seen how `retain` came to be learned, so nothing of it is guarded"
    ]


def test_a_stage_that_stops_within_goes_on_along_its_path() -> None:
    ctx = stage(build("adaptation", "lora"), task=task("new"))
    part = SynapticIntelligence(SynapticIntelligenceOptions())
    walked(part, ctx, torch.optim.SGD)
    again = SynapticIntelligence(part.options)
    again.load_state_dict(part.state_dict())
    again.begin(ctx)
    for name, value in part.state_dict().items():
        assert not isinstance(value, Tensor) or torch.equal(again.state_dict()[name], value)
    with pytest.raises(ValueError, match="rows"):
        again.load_state_dict({"rows": 1})


def test_it_holds_what_plain_training_forgets() -> None:
    losses = {}
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        old, new = task("old", rows=4), task("new", first=20, rows=4)
        first = stage(build("adaptation", "full"), task=old)
        part = SynapticIntelligence(SynapticIntelligenceOptions(strength=strength))
        trained(part, first, 60)
        ctx = stage(build("adaptation", "full"), first.adaptation.merge(), task=new, earlier=[old])
        trained(part, ctx, 30)
        losses[strength] = {each.name: loss_of(ctx, each) for each in (old, new)}
    assert losses[1.0]["old"] < 0.8 * losses[0.0]["old"], losses
    assert losses[1.0]["new"] < 2.0, losses


def trained(part: Mitigation, ctx: Context, steps: int) -> None:
    part.begin(ctx)
    optim = torch.optim.AdamW(ctx.model.parameters(), lr=5e-3)
    batch, gradients = OBJECTIVE.collate(ctx.task.train.items), ctx.gradients()
    for _ in range(steps):
        optim.zero_grad()
        (OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count).backward()
        with torch.no_grad():
            part.read_gradients(gradients, ctx)
            part.edit_gradients(gradients, ctx)
            optim.step()
            part.after_step(ctx)
    part.finish(ctx)


@torch.no_grad()
def loss_of(ctx: Context, each: Any) -> float:
    batch = OBJECTIVE.collate(each.train.items)
    return float(OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count)
