"""The stations of a run that `ftk run --explain` shows, with the parts that act at each."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from ftk.cli.explain import explain
from ftk.recipe.reading import recipe_from_table
from ftk_plugins.mitigations.replay.replay import Replay

ROWS = {"use": "world_facts", "transform": [{"use": "clean"}, {"use": "deduplicate"}]}


def shown(**changed: Any) -> str:
    table = {
        "name": "explained", "model": {"use": "scratch"}, "objective": {"use": "causal_lm"},
        "adaptation": {"use": "full"}, "data": {"train": ROWS}, **changed,
    }  # fmt: skip
    console = Console(width=200)
    with console.capture() as told:
        console.print(explain(recipe_from_table(table, "explained.toml", "")))
    return told.get()


def test_it_names_optimizer_transforms_and_clipping() -> None:
    plain = shown()
    assert "data: world_facts > clean > deduplicate through causal_lm" in plain
    assert "clip to norm 1, adamw at 0.0002" in plain
    other = shown(training={"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0})
    assert "unclipped, sgd at 0.1" in other


def test_it_names_the_parts_of_a_data_set_made_of_others() -> None:
    mixed = {"use": "mixture", "parts": {"facts": ROWS, "more": {"use": "world_facts"}}}
    assert "data: mixture of facts (world_facts) > clean > deduplicate, more (world_facts)" in shown(
        data={"train": mixed}
    )


def test_it_shows_what_acts_before_a_step_and_draws_rows_anew_where_something_does() -> None:
    assert "before the step" not in shown()
    assert "draw rows anew" not in shown()
    changing = shown(adaptation={"use": "progressive"}, objective={"use": "masked_lm"})
    assert "before the step: progressive" in changing
    assert "draw rows anew: masked_lm" in changing


def test_it_shows_an_adaptation_that_acts_on_gradients_and_after_the_step() -> None:
    ranked = shown(adaptation={"use": "adalora"})
    assert "before the step: adalora" in ranked
    assert "edit gradients: adalora" in ranked
    assert "after the step: adalora" in ranked
    assert "after the step" not in shown()


def test_it_shows_who_reads_gradients_before_they_are_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "read_gradients", lambda self, gradients, ctx: None, raising=False)
    told = shown(data={"train": ROWS, "retain": ROWS}, mitigation=[{"use": "replay"}])
    assert "read the loss's gradients: replay" in told


def test_it_shows_the_stages_that_a_sequence_makes() -> None:
    data = {"train": {"use": "world_facts", "relations": "{value}"}}
    told = shown(sequence={"values": ["capital", "currency"]}, data=data, mitigation=[{"use": "ewc"}])
    first, second = told.split("stage 2: currency")
    assert "stage 1: capital" in first
    assert "edit gradients: ewc" not in first
    assert "edit gradients: ewc" in second
