"""Weight interpolation: fixed shares, and shares chosen on validation data under a retention floor."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ftk import UserError
from ftk.examples import Task
from ftk.parts import Adaptation, Metric
from ftk.testing.toys import toy_context, toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.interpolation.interpolation import Interpolation, retained
from ftk_plugins.mitigations.interpolation.options import InterpolationOptions

TOKENS = torch.arange(3, 23).view(2, 10)
NEW, OLD = (Task(name, None, None, validation=object()) for name in ("new", "old"))  # type: ignore[arg-type]


class Scaled:
    """Stands in for an adaptation: remembers the share it was set to."""

    alpha = 1.0

    def scale(self, alpha: float) -> None:
        self.alpha = alpha


def finish(curves: dict[str, Any], earlier: tuple[Task, ...] = (OLD,), **options: Any) -> tuple[Any, ...]:
    """Run ``finish`` where ``curves[task](share)`` gives the task's metrics; return the share, report and events."""
    adaptation, events = Scaled(), []

    def measure(task: Task, split: str) -> list[Metric]:
        assert split == "validation"
        found = curves[task.name](adaptation.alpha)
        return found if isinstance(found, list) else [Metric("accuracy", found, True)]

    context = toy_context(
        torch.nn.Module(), None, adaptation, NEW, earlier, events=events, measure_task=measure  # type: ignore[arg-type]
    )
    mitigation = Interpolation(InterpolationOptions(**{"alpha": "validation", **options}))
    mitigation.finish(context)
    return adaptation.alpha, mitigation.report(), [event for event in events if event.kind == "warning"]


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
        mitigation.finish(toy_context(model, None, adaptation))  # type: ignore[arg-type]
        assert mitigation.report() == {"alpha": alpha}
        if alpha in (0, 1):
            assert torch.equal(model(TOKENS).logits, trained if alpha else plain(TOKENS).logits)
        for name, drift in adaptation.drift().items():
            torch.testing.assert_close(drift.rows(0, drift.shape[0]), alpha * before[name], atol=1e-6, rtol=1e-5)


def test_the_best_share_above_the_floor_is_chosen() -> None:
    curves = {"new": lambda a: a, "old": lambda a: 0.8 - 0.1 * a}
    alpha, report, warnings = finish(curves)
    assert alpha == 0.4, "0.8 − 0.1·0.4 is the last above 0.95·0.8"
    assert report["alpha"] == 0.4
    assert report["metric"] == "accuracy"
    assert report["retention"] == {"old": pytest.approx(0.95)}
    assert [point["alpha"] for point in report["curve"]] == [pytest.approx(i / 10) for i in range(11)]
    assert report["curve"][10] == {
        "alpha": 1.0, "learned": 1.0, "kept": {"old": pytest.approx(0.7)}, "retention": {"old": pytest.approx(0.875)},
    }  # fmt: skip
    assert not warnings
    assert finish(curves, retention_floor=0.5)[0] == 1.0
    assert finish(curves, retention_floor=0.99)[0] == 0.1


def test_the_share_that_is_best_on_the_new_task_need_not_be_the_largest() -> None:
    assert finish({"new": lambda a: -abs(a - 0.6), "old": lambda a: 1.0})[0] == 0.6
    assert finish({"new": lambda a: min(a, 0.5), "old": lambda a: 1.0})[0] == 0.5, "ties go to the smaller share"
    assert finish({"new": lambda a: min(a, 0.5)}, earlier=())[0] == 0.5


def test_lower_is_better_turns_both_comparisons() -> None:
    curves = {
        "new": lambda a: [Metric("perplexity", 20 - 10 * a, False)],
        "old": lambda a: [Metric("perplexity", 10 * (1 + a), False)],
    }
    alpha, report, _ = finish(curves, retention_floor=0.75)
    assert alpha == 0.3
    assert report["retention"]["old"] == pytest.approx(10 / 13)


def test_without_any_share_above_the_floor_the_best_keeper_is_taken_with_a_warning() -> None:
    curves = {"new": lambda a: a, "old": lambda a: 1.0 - a}
    alpha, report, warnings = finish(curves, alphas=(0.5, 0.75, 1.0))
    assert alpha == 0.5
    assert report["retention"] == {"old": 0.5}, "relative to share 0, which is measured though it is not in the grid"
    assert [point["alpha"] for point in report["curve"]] == [0.5, 0.75, 1.0]
    assert "no share keeps 0.95" in warnings[0].data["text"]


def test_every_earlier_task_counts() -> None:
    other = Task("other", None, None, validation=object())  # type: ignore[arg-type]
    curves = {"new": lambda a: a, "old": lambda a: 1.0, "other": lambda a: 1.0 if a <= 0.2 else 0.1}
    assert finish(curves, earlier=(OLD, other))[0] == 0.2


def test_the_metric_is_the_named_one_or_each_tasks_first() -> None:
    curves = {
        "new": lambda a: [Metric("f1", a, True), Metric("accuracy", 1 - a, True)],
        "old": lambda a: [Metric("accuracy", 1.0, True)],
    }
    assert finish(curves)[0] == 1.0
    assert finish(curves, metric="accuracy")[0] == 0.0
    with pytest.raises(UserError, match=r"task 'old' has no metric 'f1'\n  valid here: accuracy"):
        finish(curves, metric="f1")
    with pytest.raises(UserError, match="no evaluator measures task 'old'"):
        finish({"new": lambda a: a, "old": lambda a: []})


def test_a_value_that_is_not_a_number_is_never_chosen() -> None:
    curves = {"new": lambda a: math.nan if a == 1 else a, "old": lambda a: math.nan if a == 0.9 else 1.0}
    assert finish(curves)[0] == 0.8


def test_a_failure_leaves_the_trained_model() -> None:
    with pytest.raises(UserError, match="'old' has no validation data"):
        finish({"new": lambda a: a}, earlier=(Task("old", None, None),))  # type: ignore[arg-type]
    adaptation = Scaled()

    def measure(task: Task, split: str) -> list[Metric]:
        raise KeyboardInterrupt

    mitigation = Interpolation(InterpolationOptions(alpha="validation"))
    with pytest.raises(KeyboardInterrupt):
        mitigation.finish(toy_context(torch.nn.Module(), None, adaptation, NEW, (OLD,), measure_task=measure))  # type: ignore[arg-type]
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
    assert set(InterpolationOptions(alpha="validation").more_needs()) == {"validation-data", "retain-validation-data"}
    for wrong in ({"alpha": 1.5}, {"alpha": "test"}, {"alphas": (0.5, 0.2)}, {"alphas": ()}, {"alphas": (0.0, 2.0)}):
        with pytest.raises(ValidationError):
            InterpolationOptions(**wrong)
