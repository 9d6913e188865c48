"""Weight interpolation: fixed shares, and shares chosen on validation data under a retention floor."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ftk import Interrupted, UserError
from ftk.parts import Adaptation, Evaluator, Metric, Task
from ftk.testing.toys import toy_context, toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.interpolation.interpolation import Interpolation
from ftk_plugins.mitigations.interpolation.options import InterpolationOptions
from ftk_plugins.mitigations.retention import retained

TOKENS = torch.arange(3, 23).view(2, 10)


class Curve(Evaluator):
    """Measures what a given function says of the share that is set: a number of accuracy, or metrics."""

    def __init__(self, curve: Any) -> None:
        self.curve = curve

    def measure(self, model: Any, task: Task, ctx: Any) -> list[Metric]:
        assert task.test == "validation rows"
        found = self.curve(ctx.adaptation.alpha)
        return found if isinstance(found, list) else [Metric("accuracy", found, True)]


class Scaled:
    """Stands in for an adaptation: remembers the share it was set to."""

    alpha = 1.0

    def scale(self, alpha: float) -> None:
        self.alpha = alpha


def task(name: str, curve: Any = None, **changes: Any) -> Task:
    """A task whose validation score is ``curve(share)``."""
    return Task(**{
        "name": name, "objective": None, "train": None, "validation": "validation rows", "test": "test rows",
        "evaluators": (Curve(curve),), **changes,
    })  # fmt: skip


def context(adaptation: Any, new: Task, *earlier: Task, model: Any = None, **changes: Any) -> Any:
    objective: Any = None
    return toy_context(model or torch.nn.Module(), objective, adaptation, new, earlier, **changes)


def finish(curves: dict[str, Any], **options: Any) -> tuple[float, dict[str, Any], list[str]]:
    """End a stage whose last task is the new one; return the share, the report and the warnings."""
    adaptation, events = Scaled(), []
    *earlier, new = (task(name, curve) for name, curve in curves.items())
    ctx = context(adaptation, new, *earlier, events=events)
    mitigation = Interpolation(InterpolationOptions(**{"alpha": "validation", **options}))
    mitigation.begin(ctx)
    assert adaptation.alpha == 1.0
    mitigation.finish(ctx)
    return adaptation.alpha, mitigation.report(), [e.data["text"] for e in events if e.kind == "warning"]


@pytest.mark.parametrize("make", [lambda: FullTuning(FullOptions()), lambda: Lora(LoraOptions(rank=4))])
def test_a_fixed_share_moves_the_model_that_far(make: Any) -> None:
    plain = toy_model()
    for alpha in (0.0, 0.3, 1.0):
        adaptation: Adaptation = make()
        model = adaptation.attach(copy.deepcopy(plain))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.05
        trained = model(TOKENS).logits
        before = {name: drift.rows(0, drift.shape[0]) for name, drift in adaptation.drift().items()}
        mitigation = Interpolation(InterpolationOptions(alpha=alpha))
        mitigation.finish(context(adaptation, task("new"), model=model))
        assert mitigation.report() == {"alpha": alpha}
        if alpha in (0, 1):
            assert torch.equal(model(TOKENS).logits, trained if alpha else plain(TOKENS).logits)
        for name, drift in adaptation.drift().items():
            torch.testing.assert_close(drift.rows(0, drift.shape[0]), alpha * before[name], atol=1e-6, rtol=1e-5)


def test_the_best_share_above_the_floor_is_chosen() -> None:
    curves = {"old": lambda a: 0.8 - 0.1 * a, "new": lambda a: a}
    alpha, report, warnings = finish(curves)
    assert alpha == 0.4, "0.8 − 0.1·0.4 is the last above 0.95·0.8"
    assert report["metric"] == "accuracy"
    assert report["alpha"] == report["learned"] == 0.4
    assert report["kept"] == {"old": pytest.approx(0.76)}
    assert report["retention"] == {"old": pytest.approx(0.95)}
    assert [point["alpha"] for point in report["curve"]] == [pytest.approx(i / 10) for i in range(11)]
    last = {"alpha": 1.0, "learned": 1.0, "kept": {"old": 0.8 - 0.1}, "retention": {"old": (0.8 - 0.1) / 0.8}}
    assert report["curve"][10] == last
    assert not warnings
    assert finish(curves, retention_floor=0.5)[0] == 1.0
    assert finish(curves, retention_floor=0.98)[0] == 0.1


def test_the_share_that_is_best_on_the_new_task_need_not_be_the_largest() -> None:
    assert finish({"old": lambda a: 1.0, "new": lambda a: -abs(a - 0.6)})[0] == 0.6
    assert finish({"old": lambda a: 1.0, "new": lambda a: min(a, 0.5)})[0] == 0.5, "ties go to the smaller share"
    assert finish({"new": lambda a: min(a, 0.7)})[0] == 0.7, "with nothing to retain, the new task decides alone"


def test_lower_is_better_turns_both_comparisons() -> None:
    curves = {
        "old": lambda a: [Metric("perplexity", 10 * (1 + a), False)],
        "new": lambda a: [Metric("perplexity", 20 - 10 * a, False)],
    }
    alpha, report, _ = finish(curves, retention_floor=0.75)
    assert alpha == 0.3
    assert report["retention"]["old"] == pytest.approx(10 / 13)


def test_without_any_share_above_the_floor_the_best_keeper_is_taken_with_a_warning() -> None:
    alpha, report, warnings = finish({"old": lambda a: 1.0 - a, "new": lambda a: a}, alphas=(0.5, 0.75, 1.0))
    assert alpha == 0.5
    assert report["retention"] == {"old": 0.5}, "relative to share 0, which is measured though not in the grid"
    assert [point["alpha"] for point in report["curve"]] == [0.5, 0.75, 1.0]
    assert "no share keeps 0.95" in warnings[0]


def test_every_earlier_task_counts() -> None:
    curves = {"old": lambda a: 1.0, "other": lambda a: 1.0 if a <= 0.2 else 0.1, "new": lambda a: a}
    assert finish(curves)[0] == 0.2


def test_the_metric_is_the_named_one_or_each_tasks_first() -> None:
    curves = {
        "old": lambda a: [Metric("accuracy", 1.0, True)],
        "new": lambda a: [Metric("f1", a, True), Metric("accuracy", 1 - a, True)],
    }
    assert finish(curves)[0] == 1.0
    assert finish(curves, metric="accuracy")[0] == 0.0
    with pytest.raises(UserError, match=r"task 'old' lacks the metric 'f1'\n  valid here: accuracy"):
        finish(curves, metric="f1")
    with pytest.raises(UserError, match="task 'old' lacks a metric"):
        finish({"old": lambda a: [], "new": lambda a: a})


def test_a_value_that_is_not_a_number_is_never_chosen() -> None:
    alpha, report, _ = finish({
        "old": lambda a: math.nan if a == 0.9 else 1.0,
        "new": lambda a: math.nan if a == 1 else a,
    })  # fmt: skip
    assert alpha == 0.8
    assert report["curve"][9]["kept"] == report["curve"][9]["retention"] == {"old": None}
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        (task("old", validation=None), "'old' has no validation data"),
        (task("old", evaluators=()), "no evaluator measures task 'old'"),
    ],
)
def test_what_is_lacking_is_missed_before_training(lacking: Task, message: str) -> None:
    ctx = context(Scaled(), task("new"), lacking)
    with pytest.raises(UserError, match=message):
        Interpolation(InterpolationOptions(alpha="validation")).begin(ctx)
    Interpolation(InterpolationOptions(alpha=0.5)).begin(ctx)


def test_an_interruption_leaves_the_trained_model() -> None:
    adaptation = Scaled()

    def interrupted() -> None:
        if adaptation.alpha < 1:
            raise Interrupted("stop")

    ctx = context(adaptation, task("new", lambda a: a), check_interrupt=interrupted)
    with pytest.raises(Interrupted):
        Interpolation(InterpolationOptions(alpha="validation")).finish(ctx)
    assert adaptation.alpha == 1.0


@pytest.mark.parametrize(
    ("now", "start", "higher", "expected"),
    [
        (0.4, 0.8, True, 0.5), (12.0, 10.0, False, 10 / 12), (0.0, 0.0, True, 1.0), (0.1, 0.0, True, 1.0),
        (0.0, 0.5, True, 0.0), (-2.0, -1.0, True, 0.0), (0.0, 3.0, False, 1.0), (1.0, 0.0, False, 0.0),
    ],
)  # fmt: skip
def test_retention(now: float, start: float, higher: bool, expected: float) -> None:
    assert retained(Metric("m", now, higher), start) == pytest.approx(expected)


def test_options() -> None:
    assert InterpolationOptions().more_needs() == ()
    needs = InterpolationOptions(alpha="validation").more_needs()
    assert set(needs) == {"validation-data", "retain-validation-data"}
    for wrong in (
        {"alpha": 1.5},
        {"alpha": "test"},
        {"alpha": "validation", "alphas": (0.5, 0.2)},
        {"alpha": "validation", "alphas": ()},
        {"alpha": "validation", "alphas": (0, 2)},
        {"alphas": (0.2, 0.5)},
        {"alpha": 0.7, "retention_floor": 0.9},
        {"metric": "accuracy"},
    ):
        with pytest.raises(ValidationError):
            InterpolationOptions.model_validate(wrong)
