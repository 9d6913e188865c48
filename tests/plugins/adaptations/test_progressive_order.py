"""`progressive` by importance: what is measured, the order that follows from it, and what stands beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ftk
from ftk.parts import Context
from ftk.recipe.reading import load_recipe
from ftk.testing import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.adaptations.progressive import importance
from tests.core.loops import build
from tests.system.small import weights, written
from tests.two_tasks import stream

OBJECTIVE = build("objective", "causal_lm", packing=False)
OLD = toy_task(list(toy_rows(5)), OBJECTIVE, "old")
NEW = toy_task([{"text": f"{'xyz' * n} {n}"} for n in range(1, 6)], OBJECTIVE, "new")


def at_work(**options: Any) -> tuple[Any, nn.Module, Context]:
    part = build("adaptation", "progressive", **options)
    model = part.attach(toy_model(tie_word_embeddings=False))
    return part, model, toy_context(model, OBJECTIVE, part, NEW, [OLD], steps=40)


def thawed(part: Any, ctx: Context, first: int = 0) -> list[int]:
    """The heights in the order in which they are thawed, from this step on."""
    seen: list[int] = []
    for step in range(first, ctx.steps):
        part.before_step(replace(ctx, step=step))
        now = {part.heights[p] for p in ctx.model.parameters() if p.requires_grad}
        seen += sorted(now - set(seen))
    return seen


def by_hand(task: Any, part: Any, model: nn.Module, ctx: Context) -> dict[int, float]:
    """The mean over a part's weights of the squared gradients of rows, each by autograd."""
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        height = part.heights[parameter]
        counts[height] = counts.get(height, 0) + parameter.numel()
    for item in task.train.items:
        loss = OBJECTIVE.loss(model, OBJECTIVE.collate([item]), ctx).total
        found = torch.autograd.grad(loss, list(model.parameters()))
        for parameter, gradient in zip(model.parameters(), found, strict=True):
            height = part.heights[parameter]
            sums[height] = sums.get(height, 0.0) + float(gradient.square().sum())
    return {height: total / counts[height] for height, total in sums.items()}


@pytest.mark.parametrize("order", ["new", "old"])
def test_the_order_is_that_of_the_squared_gradients_of_rows(order: str) -> None:
    part, model, ctx = at_work(order=order)
    events: list[Any] = []
    found = thawed(part, replace(ctx, events=ftk.events.Events([events.append])))
    other, again, fresh = at_work()
    matters = by_hand(NEW if order == "new" else OLD, other, again, fresh)
    expected = [0, *sorted((h for h in matters if h), key=lambda h: -matters[h] if order == "new" else matters[h])]
    assert found == expected
    assert len(expected) == 4
    told = events[-1].data["text"]
    names = {0: "what stands behind the last block", 1: "block 2", 2: "block 1", 3: "embeddings"}
    assert told.endswith("thaws in the order " + ", ".join(names[height] for height in expected))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_first_of_the_order_are_trained_from_the_first_step_on() -> None:
    part, _, ctx = at_work(order="old")
    order = thawed(part, ctx)
    part, model, ctx = at_work(order="old", first_blocks=2)
    part.before_step(ctx)
    assert {part.heights[p] for p in model.parameters() if p.requires_grad} == set(order[:3])


@pytest.mark.parametrize(("options", "rows"), [({}, 100), ({"samples": 1}, 1)])
def test_so_many_rows_of_each_task_are_looked_at(
    options: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = importance.estimate_fisher

    def estimate(task: Any, ctx: Any, weights: Any, how: Any) -> Any:
        found = original(task, ctx, weights, how)
        asked.append((task.name, how.samples, found.samples))
        return found

    monkeypatch.setattr(importance, "estimate_fisher", estimate)
    part, _, ctx = at_work(order="new", **options)
    part.before_step(ctx)
    part.before_step(replace(ctx, step=1))
    assert asked == [("new", rows, min(rows, 5))]


def test_a_stage_that_goes_on_thaws_in_the_order_that_was_measured() -> None:
    part, _, ctx = at_work(order="old")
    whole = thawed(part, ctx)
    again, other, elsewhere = at_work(order="old")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)  # what would be measured now is something else
    again.load_state_dict(part.state_dict())
    again.before_step(replace(elsewhere, step=15))
    early = {again.heights[p] for p in other.parameters() if p.requires_grad}
    assert early == set(whole[: len(early)])
    assert 1 < len(early) < len(whole)
    assert thawed(again, elsewhere, 16)[-1] == whole[-1]


def test_options_that_cannot_act_and_needs_that_are_not_met_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`samples` is for an `order` that is measured"):
        build("adaptation", "progressive", samples=5)
    text = stream("", 'use = "progressive"\norder = "old"')
    with pytest.raises(ftk.RecipeError, match=r"`progressive` needs earlier-data.*in stage capitals"):
        load_recipe(written(tmp_path, text))


BESIDE = """
[stage.adaptation]
use = "progressive"
order = "{order}"
[[stage.mitigation]]
use = "ewc"
samples = 4
[[stage.mitigation]]
use = "replay"
share = 0.25
[[stage.mitigation]]
use = "agem"
rows_per_step = 4
"""


def test_with_ewc_replay_and_agem_it_stops_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    text = stream(BESIDE.format(order="old"), steps=8).replace("checkpoint_every = 0", "checkpoint_every = 3")
    whole = ftk.run(written(tmp_path, text), output=tmp_path / "whole")
    told = whole.report["stages"][1]["mitigations"]
    assert 0 < told["agem"]["conflicts"] <= 1
    assert told["ewc"]["tasks"].keys() == told["replay"]["rows"].keys() == {"capitals"}

    class Stopped(BaseException):
        pass

    def stop(event: Any) -> None:
        if event.kind == "step" and event.data["stage"] == 2 and event.data["step"] == 5:
            raise Stopped

    quick = text.replace("log_every = 60", "log_every = 1")
    with pytest.raises(Stopped):
        ftk.run(written(tmp_path, quick, "quick.toml"), output=tmp_path / "run", observers=[stop])
    ftk.run(written(tmp_path, quick, "quick.toml"), output=tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
