"""Runs that retain what their starting model writes: kept by it, written once, refused where nothing was learned."""

from __future__ import annotations

import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

import ftk
from ftk import RunEvent
from ftk.planning.survey import Surveyor
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import recipe_from_table
from ftk.testing.toys import toy_model, toy_tokenizer
from tests.core.test_docs import fences


def recipe(folder: Path, **data: Any) -> dict[str, Any]:
    """Learn something else, and keep what the model in ``folder`` writes."""
    own = {"use": "self_synthesis", "rows": 6, "max_new_tokens": 6, "drop_highest": 0.3}
    return {
        "name": "kept", "model": {"use": "pretrained", "path": str(folder)}, "objective": {"use": "causal_lm"},
        "adaptation": {"use": "full"}, "evaluator": [{"use": "perplexity"}],
        "mitigation": [{"use": "ewc", "samples": 4}, {"use": "replay", "share": 0.5}],
        "data": {
            "retain": own, "retain_test": {**own, "seed": 1},
            "train": {"use": "files", "path": str(folder / "new.txt")},
            "test": {"use": "files", "path": str(folder / "new.txt")}, "overlap": "allow", **data,
        },
        "training": {"steps": 2, "batch_size": 4},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    toy_model().save_pretrained(tmp_path / "model")
    toy_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "new.txt").write_text("one\ntwo\nthree\n")
    return tmp_path / "model"


def run(table: dict[str, Any], output: Path, observers: Any = ()) -> dict[str, Any]:
    found = recipe_from_table(table, "test", json.dumps(table), registry=load_registry(third_party=False))
    report: dict[str, Any] = ftk.run(found, output=output, observers=observers).report
    return report


def test_ewc_and_replay_keep_it_and_it_is_written_once_and_safely_interrupted(folder: Path, tmp_path: Path) -> None:
    told: list[RunEvent] = []

    def stop(event: RunEvent) -> None:
        if "writes rows" in str(event.data.get("text")):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ftk.Interrupted):
        run(recipe(folder), tmp_path / "stopped", [stop])
    first = run(recipe(folder), tmp_path / "first", [told.append])
    assert first["tasks"] == ["retain", "kept"]
    written = [event for event in told if "writes rows" in str(event.data.get("text"))]
    assert written[-1].data["done"] == written[-1].data["total"] == 10
    loaded = recipe_from_table(recipe(folder), "test", "", registry=load_registry(third_party=False))
    shown = Surveyor(loaded).task("retain", 0)["roles"]["train"]
    (step,) = shown["steps"]
    assert (step["name"], step["before"], step["after"], shown["rows"]) == ("self_synthesis", shown["read"], 6, 6)
    assert {effect["reason"].partition(" perplexity ")[2][:5] for effect in step["effects"]} >= {"above"}
    told.clear()
    second = run(recipe(folder), tmp_path / "second", [told.append])
    assert not [event for event in told if "writes rows" in str(event.data.get("text"))]
    assert second["matrix"] == first["matrix"]
    (folder / "generation_config.json").unlink()  # any file of the model is part of what the rows depend on
    run(recipe(folder), tmp_path / "third", [told.append])
    assert [event for event in told if "writes rows" in str(event.data.get("text"))]


def test_the_fragment_on_its_page_runs(folder: Path, tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "variants" / "datasets" / "self_synthesis.md"
    text = next(text for _, text in fences(page.read_text(encoding="utf-8"), "toml"))
    fragment, small = tomllib.loads(text), recipe(folder)
    data = {key: {**fragment["data"][key], "rows": 4, "max_new_tokens": 5} for key in ("retain", "retain_test")}
    table = {**small, **fragment, "model": small["model"], "data": {**small["data"], **data}}
    report = run(table, tmp_path / "page")
    assert report["matrix"]["perplexity"][1][0] > 0


@pytest.mark.parametrize("place", ["retain", "train", "test", "part"])
def test_a_model_that_has_learned_nothing_is_refused_wherever_it_should_write(folder: Path, place: str) -> None:
    own = {"use": "self_synthesis"}
    parts = {"own": own, "more": {"use": "files", "path": "more.jsonl"}}
    data = {"train": {"use": "mixture", "parts": parts}} if place == "part" else {place: own}
    table = {**recipe(folder, **data), "model": {"use": "scratch"}}
    with pytest.raises(ftk.RecipeError) as caught:
        recipe_from_table(table, "test", "", registry=load_registry(third_party=False))
    path = "data.train.parts.own" if place == "part" else f"data.{place}"
    mine = [problem for problem in caught.value.problems if problem.path == path]
    assert len(mine) == 1
    assert "starting model" in mine[0].reason
    assert "pretrained" in mine[0].hint


def test_a_model_that_reads_in_both_directions_is_refused_by_its_place(folder: Path, tmp_path: Path) -> None:
    toy_model(head="masked_lm").save_pretrained(folder)
    toy_tokenizer("masked_lm").save_pretrained(folder)
    with pytest.raises(ftk.UserError, match=r"data.retain_test: .*reads in both directions"):
        run({**recipe(folder), "objective": {"use": "masked_lm"}}, tmp_path / "bert")
