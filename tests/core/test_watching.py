"""Watching a stage: when it is measured, what is best, when it ends; and that training is not disturbed by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from ftk.errors import Interrupted, UserError
from ftk.parts import Context, Evaluator, Metric, Task
from ftk.recipe.training import Training
from ftk.running.loop import Loop, Progress
from ftk.running.watching import Watch, criterion
from ftk.testing import toy_task
from tests.core.loops import make_loop, rows, weights


def watch(**options: Any) -> Watch:
    return Watch(Training(evaluate_every=10, **options))


def history(*values: float | None) -> list[dict[str, Any]]:
    return [{"step": 10 * number, "criterion": value} for number, value in enumerate(values)]


def test_it_measures_before_the_first_step_every_so_often_and_after_the_last() -> None:
    measured: list[dict[str, Any]] = []
    for step in range(36):
        if watch().due(step, 35, measured):
            measured.append({"step": step})
    assert [entry["step"] for entry in measured] == [0, 10, 20, 30, 35]
    assert not watch().due(35, 35, measured), "what was measured is not measured again"
    assert not Watch(Training()).due(0, 35, [])


@pytest.mark.parametrize(
    ("values", "best"),
    [((0.1, 0.5, 0.3), 10), ((0.5, 0.5), 0), ((None, -3.0, None), 10), ((None, None), None), ((), None)],
)
def test_the_best_is_the_first_of_the_highest(values: tuple[float | None, ...], best: int | None) -> None:
    assert watch(keep="best").best(history(*values)) == best
    assert watch(keep="best").kept(history(*values)) == best
    assert watch(early_stopping={}).kept(history(*values)) is None, "the last weights are kept"


@pytest.mark.parametrize(
    ("values", "min_delta", "stops"),
    [
        ((0.1, 0.5, 0.4, 0.3), 0.0, True),
        ((0.1, 0.5, 0.4), 0.0, False),
        ((0.1, 0.5, 0.4, 0.6, 0.6), 0.0, False),
        ((0.1, 0.5, 0.5, 0.5), 0.0, True),
        ((0.1, 0.2, 0.3), 0.2, True),  # 0.3 is no more than 0.2 above 0.1
        ((0.1, 0.2, 0.4), 0.2, False),  # gains add up until they are enough
        ((None, None), 0.0, True),
    ],
)
def test_it_stops_when_patience_ends(values: tuple[float | None, ...], min_delta: float, stops: bool) -> None:
    assert watch(early_stopping={"patience": 2, "min_delta": min_delta}).exhausted(history(*values)) == stops
    assert not watch(keep="best").exhausted(history(*values))


FOUND = {
    "retain": [Metric("nats", 2.0, False), Metric("accuracy", 0.8, True)],
    "capitals": [Metric("accuracy", 0.6, True)],
    "currencies": [Metric("accuracy", 0.3, True), Metric("nats", 3.0, False)],
}


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0.3),
        ({"best_by": "nats"}, -3.0),
        ({"retention_weight": 0.5}, 0.3 + 0.5 * (0.8 + 0.6) / 2),
        ({"best_by": "nats", "retention_weight": 2}, -3.0 - 2 * 2.0),  # capitals has none and does not count
    ],
)
def test_the_criterion_is_a_weighted_sum_of_target_and_retention(options: dict[str, Any], value: float) -> None:
    assert criterion(watch(keep="best", **options).options, ["currencies"], FOUND) == pytest.approx(value)


def test_of_several_new_tasks_the_mean_counts_over_those_that_have_the_metric() -> None:
    found = {**FOUND, "joint/a": [Metric("accuracy", 0.9, True)], "joint/b": [Metric("nats", 1.0, False)]}
    options = watch(keep="best", best_by="accuracy", retention_weight=0.5).options
    new = ["currencies", "joint/a", "joint/b"]
    assert criterion(options, new, found) == pytest.approx((0.3 + 0.9) / 2 + 0.5 * (0.8 + 0.6) / 2)


def test_a_metric_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"`currencies` has no metric `acuracy`\n.*did you mean `accuracy`"):
        criterion(watch(keep="best", best_by="acuracy").options, ["currencies"], FOUND)
    alone = {"capitals": [Metric("f1", 1.0, True)], "currencies": FOUND["currencies"]}
    weighed = watch(keep="best", retention_weight=1).options
    with pytest.raises(UserError, match="no earlier task has the metric `accuracy`"):
        criterion(weighed, ["currencies"], alone)
    assert criterion(weighed, ["currencies"], {"currencies": FOUND["currencies"]}) == 0.3, "there is no earlier task"


class Weight(Evaluator):
    """The model's first weight, and a great disturbance on the way."""

    def measure(self, model: Any, task: Task, ctx: Context) -> list[Metric]:
        assert not model.training
        ctx.check_interrupt()
        torch.manual_seed(7)
        return [Metric("weight", float(next(model.parameters()).sum()), True)]


def watched(parts: Any = None, **options: Any) -> Loop:
    loop = make_loop("lora", parts, dropout=0.5, steps=7, **options)
    tasks = [toy_task(rows(4), loop.ctx.objective, name, (Weight(),)) for name in ("old", "new")]
    trained = replace(tasks[1], train=loop.ctx.task.train)
    return replace(loop, ctx=replace(loop.ctx, task=trained, earlier=(tasks[0],)))


def test_evaluations_leave_training_as_it_was_to_the_last_bit() -> None:
    plain, seen = watched(), watched(evaluate_every=2)
    plain.train(Progress())
    progress = Progress()
    seen.train(progress)
    assert torch.equal(weights(plain), weights(seen))
    assert [entry["step"] for entry in progress.history] == [0, 2, 4, 6, 7]
    assert all(set(entry["scores"]) == {"old", "new"} for entry in progress.history)
    tokens = [entry["tokens"] for entry in progress.history]
    assert tokens == sorted(tokens)
    assert tokens[0] == 0
    assert tokens[-1] == progress.tokens


def test_a_signal_during_an_evaluation_saves_and_the_evaluation_is_made_later() -> None:
    whole = Progress()
    watched(evaluate_every=2).train(whole)
    asked: Iterator[bool] = iter([False] * 6 + [True])  # asked four times in an evaluation

    def check() -> None:
        if next(asked, False):
            raise Interrupted("now")

    saved: list[tuple[int, int]] = []
    loop = watched(evaluate_every=2, save=lambda progress: saved.append((progress.step, len(progress.history))))
    loop = replace(loop, ctx=replace(loop.ctx, check_interrupt=check))
    progress = Progress()
    with pytest.raises(Interrupted):
        loop.train(progress)
    assert saved == [(2, 1)], "the interrupted evaluation, the second, is not in the history"
    loop.train(progress)
    assert [entry["step"] for entry in progress.history] == [0, 2, 4, 6, 7]
    assert progress.history == whole.history


def test_a_signal_before_the_last_evaluation_interrupts_though_all_steps_are_done() -> None:
    stop = iter([False] * 6 + [True])
    loop, progress = watched(evaluate_every=7, stop=lambda: next(stop, False)), Progress()
    with pytest.raises(Interrupted, match="after step 7"):
        loop.train(progress)
    assert [entry["step"] for entry in progress.history] == [0]
    loop.train(progress)
    assert [entry["step"] for entry in progress.history] == [0, 7]


def test_what_evaluations_take_is_no_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("ftk.report.meter.time.perf_counter", lambda: clock[0])

    class Slow(Evaluator):
        def measure(self, model: Any, task: Task, ctx: Context) -> list[Metric]:
            clock[0] += 1000
            return [Metric("weight", 1.0, True)]

    loop = watched(evaluate_every=2)
    assert loop.ctx.task is not None
    slow = replace(loop.ctx.task, evaluators=(Slow(),))
    progress = Progress()
    replace(loop, ctx=replace(loop.ctx, task=slow)).train(progress)
    assert progress.seconds == 0
