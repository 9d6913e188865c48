"""The budget: strengths turned by what is retained, and the way back that a floor asks for at the end."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

import ftk
from ftk.parts import Evaluator, Knob, Metric, Task
from ftk.testing.toys import toy_context
from ftk_plugins.mitigations.budget.budget import Budget
from ftk_plugins.mitigations.budget.options import BudgetOptions


class Scored(Evaluator):
    """Measures what a function says of the strengths and the share of the drift."""

    def __init__(self, score: Any, higher: bool = True) -> None:
        self.score, self.higher = score, higher

    def measure(self, model: Any, task: Task, ctx: Any) -> list[Metric]:
        return [Metric("score", self.score(ctx), self.higher)]


class Moved:
    """Stands in for an adaptation: remembers which share of its drift is set."""

    share = 1.0

    def scale(self, alpha: float) -> None:
        self.share = alpha

    @contextmanager
    def reference(self) -> Any:
        before, self.share = self.share, 0.0
        yield
        self.share = before


def task(name: str, score: Any, higher: bool = True) -> Task:
    rows: Any = "rows"
    nothing: Any = None
    measured = {"validation": rows, "test": rows, "evaluators": (Scored(score, higher),)}
    return Task(name=name, objective=nothing, train=nothing, **measured)


def context(old: Any, *, new: Any = lambda ctx: ctx.adaptation.share, higher: bool = True, **changes: Any) -> Any:
    objective: Any = None
    adaptation: Any = Moved()
    made = {"knobs": {"ewc": Knob(0.1)}, "steps": 40, "stage": 2, **changes}
    earlier = [task("old", old, higher)]
    return toy_context(torch.nn.Module(), objective, adaptation, task("new", new), earlier, **made)


def started(ctx: Any, **options: Any) -> Budget:
    budget = Budget(BudgetOptions(**{"every": 4, **options}))
    budget.begin(ctx)
    return budget


def at(ctx: Any, step: int) -> Any:
    return replace(ctx, step=step)


def train(budget: Budget, ctx: Any, first: int = 0, last: int | None = None) -> None:
    for step in range(first, ctx.steps if last is None else last):
        budget.after_step(at(ctx, step))


@pytest.mark.parametrize(
    ("score", "higher", "missed"),
    [
        (1.0, True, -1.0),  # nothing lost: divided by the factor
        (0.9, True, 0.0),  # the floor just holds
        (0.8, True, 1.0),  # twice as much lost as may be
        (0.1, True, 3.0),  # beyond what counts in one measurement
        (1.0 / 0.8, False, 1.0),  # where lower is better
        (math.nan, True, 3.0),
    ],
)
def test_a_measurement_turns_every_knob_by_what_has_been_lost(score: float, higher: bool, missed: float) -> None:
    knobs = {"ewc": Knob(0.1), "l2sp": Knob(3.0)}
    ctx = context(lambda ctx: 1.0 if ctx.adaptation.share == 0 else score, higher=higher, knobs=knobs)
    budget = started(ctx, retention_floor=0.9, factor=5.0, every=30)
    train(budget, ctx, last=29)
    assert knobs["ewc"].value == 0.1
    budget.after_step(at(ctx, 29))
    assert knobs["ewc"].value == pytest.approx(0.1 * 5.0**missed)
    assert knobs["l2sp"].value == pytest.approx(3.0 * 5.0**missed)


@pytest.mark.parametrize(
    ("done", "score", "missed"),
    [
        (0.15, 0.7, 0.0),  # three times what may be lost, where 6.3 times may be
        (0.15, 0.9, 0.0),
        (0.15, 0.95, -0.5),  # what less is lost than may be in the end
        (0.3, 0.2, 8 / 10**0.6 - 1),
        (0.75, 0.7, 2.0),
    ],
)
def test_what_may_be_lost_narrows_as_the_stage_goes_on(done: float, score: float, missed: float) -> None:
    ctx = context(lambda ctx: 1.0 if ctx.adaptation.share == 0 else score)
    budget = started(ctx, retention_floor=0.9, every=round(40 * done))
    train(budget, ctx, last=round(40 * done))
    assert ctx.knobs["ewc"].value == pytest.approx(0.1 * 2.0**missed)


def test_the_strength_settles_where_the_floor_just_holds() -> None:
    """Of a task of which 1/(1 + 10 s) is lost at strength s, a floor of 0.95 asks for s = 1.9."""
    ctx = context(lambda ctx: 1 - (ctx.adaptation.share > 0) / (1 + 10 * ctx.knobs["ewc"].value), steps=400)
    budget = started(ctx)
    train(budget, ctx)
    assert ctx.knobs["ewc"].value == pytest.approx(1.9, rel=0.05)


def test_a_knob_stays_within_its_range_and_the_limit() -> None:
    knobs = {"narrow": Knob(0.1, 0.05, 0.2), "wide": Knob(0.1)}
    ctx = context(lambda ctx: float(ctx.adaptation.share == 0), knobs=knobs)
    train(started(ctx, limit=10.0), ctx)
    assert knobs["narrow"].value == 0.2
    assert knobs["wide"].value == pytest.approx(1.0)


def test_only_the_named_are_turned_and_a_tenth_of_the_stage_lies_between_two_measurements() -> None:
    knobs = {"ewc": Knob(0.1), "l2sp": Knob(0.1)}
    ctx = context(lambda ctx: 1.0, knobs=knobs)
    budget = started(ctx, every=None, mitigations=("l2sp",))
    train(budget, ctx)
    assert knobs["ewc"].value == 0.1
    assert knobs["l2sp"].value == pytest.approx(0.1 / 2**9)
    assert [point["step"] for point in budget.report()["course"]] == list(range(4, 40, 4))


def test_a_stage_that_resumes_goes_on_with_the_strengths_it_had() -> None:
    def scores(ctx: Any) -> float:
        return 1 - 0.2 * ctx.adaptation.share * (ctx.step % 8 == 3)

    whole, cut, resumed = (context(scores, knobs={"ewc": Knob(0.1)}) for _ in range(3))
    through = started(whole)
    train(through, whole)
    before = started(cut)
    train(before, cut, last=17)
    after = Budget(before.options)
    after.load_state_dict(before.state_dict())
    after.begin(resumed)
    assert resumed.knobs["ewc"].value == cut.knobs["ewc"].value != 0.1
    train(after, resumed, first=17)
    assert after.state_dict() == through.state_dict()
    assert resumed.knobs["ewc"].value == whole.knobs["ewc"].value


def test_the_next_stage_begins_with_the_recipe_s_strengths() -> None:
    ctx = context(lambda ctx: 1.0)
    budget = started(ctx)
    train(budget, ctx)
    following = Budget(budget.options)
    following.load_state_dict(budget.state_dict())
    later = context(lambda ctx: 1.0, stage=3)
    following.begin(later)
    assert later.knobs["ewc"].value == 0.1
    assert following.report()["course"] == []


def test_it_steps_back_by_just_as_much_as_the_floor_asks_for() -> None:
    """Where 0.3·share is lost, a floor of 0.9 holds up to a share of 1/3; halving five times finds 10/32."""
    ctx = context(lambda ctx: 1 - 0.3 * ctx.adaptation.share)
    budget = started(ctx, retention_floor=0.9)
    budget.finish(ctx)
    assert ctx.adaptation.share == 10 / 32
    told = budget.report()
    assert told["share"] == 10 / 32
    assert told["whole"] == {"learned": 1.0, "retention": {"old": pytest.approx(0.7)}}
    assert told["kept"] == {"learned": 10 / 32, "retention": {"old": pytest.approx(1 - 3 / 32)}}


@pytest.mark.parametrize(("trials", "share"), [(0, 1.0), (1, 0.0), (2, 0.25)])
def test_so_many_trials_and_no_more_find_the_share(trials: int, share: float) -> None:
    ctx = context(lambda ctx: 1 - 0.3 * ctx.adaptation.share)
    started(ctx, retention_floor=0.9, trials=trials).finish(ctx)
    assert ctx.adaptation.share == share


def test_where_the_floor_holds_nothing_is_given_up() -> None:
    ctx = context(lambda ctx: 1 - 0.05 * ctx.adaptation.share)
    budget = started(ctx)
    budget.finish(ctx)
    assert ctx.adaptation.share == 1.0
    assert budget.report()["share"] == 1.0


def test_a_broken_measurement_leaves_the_trained_model() -> None:
    def score(ctx: Any) -> float:
        if 0 < ctx.adaptation.share < 1:
            raise RuntimeError("broken")
        return 1 - ctx.adaptation.share

    ctx = context(score)
    with pytest.raises(ftk.RunFailed, match="broken"):
        started(ctx).finish(ctx)
    assert ctx.adaptation.share == 1.0


def test_a_strength_of_nothing_is_told() -> None:
    events: list[Any] = []
    started(context(lambda ctx: 1.0, knobs={"ewc": Knob(0.0)}, events=events))
    assert "the strength of `ewc` is 0" in events[0].data["text"]


STAGES = """
name = "floor"
seed = 0
model = { use = "scratch", architecture = "llama", hidden_size = 16, layers = 1, heads = 2, vocabulary_size = 300 }
objective = { use = "instruction" }
adaptation = { use = "full" }
evaluator = [{ use = "perplexity" }]
training = { steps = 8, batch_size = 4, learning_rate = 1e-2, precision = "fp32" }

[data]
overlap = "allow"
train = { use = "world_facts", relations = ["currency"], limit = 6, languages = ["en"] }
retain = { use = "world_facts", relations = ["capital"], limit = 6, languages = ["en"] }
VALIDATION

[[mitigation]]
use = "MITIGATION"

[[mitigation]]
use = "budget"
MORE
"""
ROWS = "\n".join(
    f'{role} = {{ use = "world_facts", relations = ["{relation}"], limit = 6, languages = ["en"] }}'
    for role, relation in (
        ("validation", "currency"), ("test", "currency"), ("retain_validation", "capital"), ("retain_test", "capital"),
    )
)  # fmt: skip


def recipe(mitigation: str = "ewc", more: str = "", rows: str = ROWS) -> str:
    return STAGES.replace("VALIDATION", rows).replace('"MITIGATION"', f'"{mitigation}"').replace("MORE", more)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (recipe("replay"), r"budget.*needs strength-knob, and no other mitigation has a strength to turn"),
        (recipe("interpolation"), r"`interpolation` and `budget` each set which share of the drift is kept"),
        (
            recipe("interpolation").replace('use = "interpolation"', 'use = "interpolation"\nmethod = "ties"'),
            r"`interpolation` and `budget` each set which share of the drift is kept",
        ),
        (recipe(more='mitigations = ["ewv"]'), r"no mitigation `ewv` with a strength stands beside it"),
        (recipe(more="retention_floor = 1.5"), "retention_floor"),
        (recipe(rows=ROWS.replace("validation", "probe.x", 1)), "validation-data"),
    ],
    ids=["no knob", "two shares", "two ways", "unknown", "floor", "validation"],
)
def test_what_it_cannot_hold_is_refused(text: str, told: str, tmp_path: Any) -> None:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ftk.RecipeError, match=told):
        ftk.run(tmp_path / "recipe.toml", output=tmp_path / "run")
