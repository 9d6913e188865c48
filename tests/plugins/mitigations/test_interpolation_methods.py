"""Interpolation by methods of merging and of averaged weights: what it sets, against the formulas on both ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ftk.parts import Adaptation, Context, Evaluator, Metric, Task
from ftk.plugin.discovery import load_registry
from ftk.recipe.building import build
from ftk.recipe.levels import Reader
from ftk.testing.toys import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc.fisher import Estimate, estimate_fisher
from ftk_plugins.mitigations.interpolation.interpolation import Interpolation
from ftk_plugins.mitigations.interpolation.options import InterpolationOptions
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

REGISTRY = load_registry(third_party=False)
OBJECTIVE = CausalLM(CausalLMOptions())
UP = "model.layers.{}.mlp.up_proj.weight"


class Told(Evaluator):
    """Measures what a function of nothing says."""

    def __init__(self, value: Callable[[], float]) -> None:
        self.value = value

    def measure(self, model: Any, task: Task, ctx: Context) -> list[Metric]:
        return [Metric("accuracy", self.value(), True)]


def interpolation(**options: Any) -> Interpolation:
    """The mitigation as a recipe makes it."""
    spec = Reader(REGISTRY).part("mitigation", {"use": "interpolation", **options}, "mitigation.interpolation")
    assert spec is not None
    return build(spec, Interpolation)


def stage(adaptation: Adaptation | None = None, **changes: Any) -> tuple[Context, dict[str, Tensor], dict[str, Tensor]]:
    """A stage that has been trained: its context, the weights at its start and at its end."""
    adaptation = adaptation or FullTuning(FullOptions())
    torch.manual_seed(0)
    model = adaptation.attach(toy_model(num_hidden_layers=3))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ctx = toy_context(model, OBJECTIVE, adaptation, **changes)
    wander(ctx)
    return ctx, start, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def wander(ctx: Context, seed: int = 0) -> None:
    noise = torch.Generator().manual_seed(seed)
    for parameter in ctx.model.parameters():
        if parameter.requires_grad:
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)


def ties(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    moved = (end - start).flatten()
    kept = moved.abs().sort(descending=True, stable=True).indices[: int(0.3 * len(moved)) or 1]
    trimmed = torch.zeros_like(moved)
    trimmed[kept] = moved[kept]
    return start + alpha * trimmed.view_as(start)


def slerp(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    a, b = start.double().flatten(), end.double().flatten()
    angle = torch.arccos(a @ b / a.norm() / b.norm())
    if torch.cos(angle) > 0.9995:
        return (1 - alpha) * start + alpha * end
    turned = torch.sin((1 - alpha) * angle) * a + torch.sin(alpha * angle) * b
    return (turned / torch.sin(angle)).view_as(start).float()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("method", "formula"), [({"use": "ties", "density": 0.3}, ties), ("slerp", slerp)])
def test_methods_that_set_entries(method: Any, formula: Callable[..., Tensor], alpha: float) -> None:
    ctx, start, end = stage()
    mitigation = interpolation(alpha=alpha, method=method)
    mitigation.finish(ctx)
    for name, tensor in ctx.model.state_dict().items():
        torch.testing.assert_close(tensor, formula(start[name], end[name], alpha), atol=1e-5, rtol=1e-4)
    assert mitigation.report() == {"method": "ties" if formula is ties else "slerp", "alpha": alpha}


def test_dare_drops_of_the_movement_by_the_runs_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        ctx, start, end = stage(seed=seed)
        interpolation(alpha=0.5, method={"use": "dare", "density": 0.25}).finish(ctx)
        name = UP.format(1)
        share = (ctx.model.state_dict()[name] - start[name]) / (end[name] - start[name])
        kept = share > 1
        torch.testing.assert_close(share[kept], torch.full_like(share[kept], 2.0), atol=1e-2, rtol=1e-2)
        assert share[~kept].abs().max() < 1e-6
        assert kept.float().mean().item() == pytest.approx(0.25, abs=0.05)
        found.append(kept)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("make", [lambda: FullTuning(FullOptions()), lambda: Lora(LoraOptions(rank=4))])
def test_lines_scales_each_layer_by_its_depth(make: Callable[[], Adaptation]) -> None:
    ctx, _, _ = stage(make())
    assert ctx.adaptation is not None
    before = {name: drift.rows(0, drift.shape[0]) for name, drift in ctx.adaptation.drift().items()}
    interpolation(alpha=0.8, method={"use": "lines", "first": 0.5}).finish(ctx)
    after = {name: drift.rows(0, drift.shape[0]) for name, drift in ctx.adaptation.drift().items()}
    for layer, share in ((0, 0.4), (1, 0.6), (2, 0.8)):
        name = UP.format(layer)
        torch.testing.assert_close(after[name], share * before[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
@pytest.mark.parametrize("make", [lambda: FullTuning(FullOptions()), lambda: Lora(LoraOptions(rank=4))])
def test_the_line_is_what_scale_does_bit_for_bit(make: Callable[[], Adaptation], method: str) -> None:
    for alpha in InterpolationOptions().alphas:
        ctx, _, _ = stage(make())
        other, _, _ = stage(make())
        interpolation(alpha=alpha, method=method).finish(ctx)
        assert other.adaptation is not None
        other.adaptation.scale(alpha)
        plain, scaled = ctx.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(plain[name], scaled[name]) for name in scaled)


def test_fisher_takes_each_entry_from_the_end_that_needs_it() -> None:
    old, new = (
        toy_task(rows, OBJECTIVE, name) for name, rows in (("old", list(toy_rows(3))), ("new", list(toy_rows(6))[3:]))
    )
    adaptation = FullTuning(FullOptions())
    model = adaptation.attach(toy_model())
    ctx = toy_context(model, OBJECTIVE, adaptation, new, [old])
    weights = {name: drift.weight for name, drift in adaptation.drift().items()}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    mitigation = interpolation(alpha=0.3, method={"use": "fisher", "floor": 1e-9}, samples=100)
    mitigation.remember(old, ctx)
    known = estimate_fisher(old, ctx, weights, Estimate(100)).parts
    wander(ctx)
    end = {name: weight.detach().clone() for name, weight in weights.items()}
    taught = estimate_fisher(new, ctx, weights, Estimate(100)).parts
    again = interpolation(alpha=0.3, method={"use": "fisher", "floor": 1e-9}, samples=100)
    again.load_state_dict(mitigation.state_dict())
    again.finish(ctx)
    for name, weight in weights.items():
        first, last = 0.7 * known[name].clamp(min=1e-9), 0.3 * taught[name].clamp(min=1e-9)
        expected = (first * start[name] + last * end[name]) / (first + last)
        torch.testing.assert_close(weight.detach(), expected, atol=1e-5, rtol=1e-4)


def walked(
    mitigation: Interpolation, steps: int = 8, stop: int | None = None
) -> tuple[Context, list[dict[str, Tensor]]]:
    """A stage of some steps with the mitigation at each; the weights before the first and after each."""
    adaptation = FullTuning(FullOptions())
    model = adaptation.attach(toy_model(num_hidden_layers=1))
    ctx = toy_context(model, OBJECTIVE, adaptation, steps=steps)
    mitigation.begin(ctx)
    course = [{name: tensor.clone() for name, tensor in model.state_dict().items()}]
    for step in range(stop or steps):
        wander(ctx, step)
        mitigation.after_step(replace(ctx, step=step))
        course.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return ctx, course


@pytest.mark.parametrize(
    ("options", "taken"), [({}, [5, 6, 7, 8]), ({"begin": 0.0, "every": 3}, [2, 5, 8]), ({"begin": 0.9}, [8])]
)
def test_average_is_the_mean_over_the_last_steps(options: dict[str, Any], taken: list[int]) -> None:
    mitigation = interpolation(alpha=1.0, trained_weights="average", **options)
    ctx, course = walked(mitigation)
    mitigation.finish(ctx)
    for name, tensor in ctx.model.state_dict().items():
        expected = torch.stack([course[step][name] for step in taken]).mean(0)
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
    assert mitigation.report() == {"trained_weights": "average", "taken": len(taken), "alpha": 1.0}
    assert not any("mean" in key for key in mitigation.state_dict()), "what was averaged is not kept"


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_ema_is_the_recursion_and_half_of_it_with_alpha(decay: float) -> None:
    mitigation = interpolation(alpha=0.5, trained_weights="ema", decay=decay)
    ctx, course = walked(mitigation)
    mitigation.finish(ctx)
    for name, tensor in ctx.model.state_dict().items():
        average = course[0][name]
        for number, weights in enumerate(course[1:]):
            kept = min(decay, (1 + number) / (10 + number))
            average = kept * average + (1 - kept) * weights[name]
        torch.testing.assert_close(tensor, (course[0][name] + average) / 2, atol=1e-6, rtol=1e-5)


def test_an_average_is_merged_by_the_method() -> None:
    mitigation = interpolation(alpha=1.0, method={"use": "ties", "density": 0.3}, trained_weights="average", begin=0.5)
    ctx, course = walked(mitigation)
    mitigation.finish(ctx)
    for name, tensor in ctx.model.state_dict().items():
        average = torch.stack([weights[name] for weights in course[5:]]).mean(0)
        torch.testing.assert_close(tensor, ties(course[0][name], average, 1.0), atol=1e-5, rtol=1e-4)


def test_an_average_goes_on_in_its_stage_and_begins_again_in_the_next() -> None:
    whole, half, again = (interpolation(trained_weights="ema", decay=0.5) for _ in range(3))
    walked(whole)
    ctx, _ = walked(half, stop=4)
    again.load_state_dict({name: torch.clone(v) if torch.is_tensor(v) else v for name, v in half.state_dict().items()})
    again.begin(ctx)
    for step in range(4, 8):
        wander(ctx, step)
        again.after_step(replace(ctx, step=step))
    one, other = whole.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)
    again.begin(replace(ctx, stage=2))
    assert again.state_dict() == {"taken": 0, "stage": 2}


def test_without_an_average_yet_the_last_weights_stand() -> None:
    mitigation = interpolation(alpha=1.0, trained_weights="average", begin=0.9)
    ctx, course = walked(mitigation, stop=3)
    mitigation.finish(ctx)
    assert all(torch.equal(tensor, course[-1][name]) for name, tensor in ctx.model.state_dict().items())
    assert mitigation.report()["taken"] == 0


def test_a_share_of_ties_is_chosen_under_the_floor_and_an_interruption_goes_back() -> None:
    def task(name: str, curve: Callable[[float], float]) -> Task:
        def gone() -> float:
            return float((ctx.model.state_dict()[UP.format(0)] - start[UP.format(0)]).norm() / far)

        evaluator = Told(lambda: curve(gone()))
        return Task(name, OBJECTIVE, None, "validation rows", "test rows", evaluators=(evaluator,))  # type: ignore[arg-type]

    ctx, start, end = stage()
    far = (ties(start[UP.format(0)], end[UP.format(0)], 1.0) - start[UP.format(0)]).norm()
    ctx = replace(ctx, task=task("new", lambda gone: gone), earlier=(task("old", lambda gone: 1 - 0.5 * gone),))
    mitigation = interpolation(alpha="validation", method={"use": "ties", "density": 0.3}, retention_floor=0.7499)
    mitigation.finish(ctx)
    assert mitigation.report()["alpha"] == 0.5
    assert len(mitigation.report()["curve"]) == 11
    torch.testing.assert_close(
        ctx.model.state_dict()[UP.format(0)], ties(start[UP.format(0)], end[UP.format(0)], 0.5), atol=1e-5, rtol=1e-4
    )

    def interrupted() -> None:
        raise KeyboardInterrupt

    ctx, start, end = stage()
    with pytest.raises(KeyboardInterrupt):
        interpolation(alpha="validation", method="ties").finish(replace(ctx, check_interrupt=interrupted))
    assert all(torch.equal(tensor, end[name]) for name, tensor in ctx.model.state_dict().items())
