"""Replay: which rows are kept, how the share is divided, and what survives a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ftk import UserError
from ftk.parts import Context, Task
from ftk.testing.toys import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.mitigations.replay.options import ReplayOptions
from ftk_plugins.mitigations.replay.replay import Replay
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

OBJECTIVE = CausalLM(CausalLMOptions())
MODEL = toy_model()


def task(name: str, rows: int, objective: CausalLM = OBJECTIVE) -> Task:
    return toy_task(list(toy_rows(rows)), objective, name)


def context(*earlier: Task, **changes: Any) -> Context:
    return toy_context(MODEL, OBJECTIVE, earlier=earlier, **changes)


def remembered(ctx: Context, **options: Any) -> Replay:
    replay = Replay(ReplayOptions(**options))
    for each in ctx.earlier:
        replay.remember(each, ctx)
    return replay


def test_all_rows_of_a_small_task_are_a_source() -> None:
    old = task("old", 6)
    (source,) = remembered(context(old), share=0.25).sources(context(old))
    assert (source.name, source.share, source.objective) == ("old", 0.25, OBJECTIVE)
    assert len(source.items) == 6
    for item, expected in zip(source.items, old.train.encoded, strict=True):
        np.testing.assert_array_equal(item["input_ids"], expected["input_ids"])


def test_only_named_tasks_are_replayed() -> None:
    ctx = context(task("old", 6), task("older", 4), task("retain", 3))
    sources = remembered(ctx, tasks=["older", "retain"], share=0.3).sources(ctx)
    assert [(source.name, source.share) for source in sources] == [("older", 0.15), ("retain", 0.15)]


def test_the_buffer_holds_a_seeded_choice_without_repeats() -> None:
    ctx = context(task("old", 40))
    kept = remembered(ctx, buffer_size=10).state_dict()["old"]
    assert len(set(kept)) == 10
    assert kept == sorted(kept)
    assert kept != list(range(10))
    assert remembered(ctx, buffer_size=10).state_dict()["old"] == kept
    assert remembered(replace(ctx, seed=1), buffer_size=10).state_dict()["old"] != kept


def test_the_source_has_the_rows_that_were_kept() -> None:
    ctx = context(task("old", 40))
    replay = remembered(ctx, buffer_size=5)
    (source,) = replay.sources(ctx)
    for item, index in zip(source.items, replay.state_dict()["old"], strict=True):
        np.testing.assert_array_equal(item["labels"], ctx.earlier[0].train.encoded[index]["labels"])


def test_the_buffer_is_bounded_by_default_and_may_be_all() -> None:
    ctx = context(task("old", 505))
    assert remembered(ctx).report() == {"rows": {"old": 500}}
    assert remembered(ctx, buffer_size="all").report() == {"rows": {"old": 505}}


@pytest.mark.parametrize(("by", "shares"), [("task", [0.15, 0.15]), ("rows", [0.06, 0.24])])
def test_tasks_divide_the_share(by: str, shares: list[float]) -> None:
    ctx = context(task("retain", 3), task("capitals", 12))
    sources = remembered(ctx, share=0.3, by=by).sources(ctx)
    assert [source.name for source in sources] == ["retain", "capitals"]
    assert [source.share for source in sources] == pytest.approx(shares)


def test_each_source_keeps_its_own_objective_and_packs_by_it() -> None:
    packing = CausalLM(CausalLMOptions(packing=True, max_length=64))
    ctx = context(task("plain", 4), task("packed", 4, packing))
    plain, packed = remembered(ctx).sources(ctx)
    assert plain.objective is OBJECTIVE
    assert packed.objective is packing
    assert len(packed.items) < len(plain.items) == 4


def test_the_share_is_told_to_the_checks() -> None:
    assert ReplayOptions(share=0.2).data_share() == 0.2
    assert ReplayOptions().data_share() == 0.1


def test_state_survives_a_restart_and_grows_with_the_stages() -> None:
    old, newer = task("old", 30), task("newer", 20)
    state = json.loads(json.dumps(remembered(context(old), buffer_size=7).state_dict()))
    back = Replay(ReplayOptions(buffer_size=7))
    back.load_state_dict(state)
    ctx = context(old, newer, stage=2)
    back.remember(newer, ctx)
    assert back.state_dict()["old"] == state["old"]
    assert [len(source.items) for source in back.sources(ctx)] == [7, 7]


def test_nothing_remembered_is_nothing_replayed() -> None:
    assert Replay(ReplayOptions()).sources(context(task("old", 3))) == []
    assert remembered(context(task("old", 3))).sources(context()) == []


def test_a_strange_state_is_refused() -> None:
    with pytest.raises(ValueError, match="row numbers"):
        Replay(ReplayOptions()).load_state_dict({"old": "rows"})


def test_a_task_without_rows_is_refused() -> None:
    old = task("old", 3)
    empty = replace(old, train=old.train.subset([]))
    with pytest.raises(UserError, match="nothing of `old` to replay"):
        remembered(context(empty))


@pytest.mark.parametrize(
    "wrong", [{"share": 0}, {"share": 1}, {"buffer_size": 0}, {"buffer_size": "some"}, {"by": "size"}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReplayOptions(**wrong)
