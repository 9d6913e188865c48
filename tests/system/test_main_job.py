"""The main job: forgetting is real, and EWC stops it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import ftk
from ftk.recipe.reading import load_recipe
from ftk.running.folder import RunFolder

RECIPE = Path(__file__).parents[2] / "recipes" / "ewc_lora.toml"
HALF = (
    "model.hidden_size=160",
    *(f"stage.{at}.data.{role}.limit=24" for at in ("capitals", "currencies") for role in ("train", "test")),
)
"""Half as many countries and a smaller model: the same in a third of the time."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    """The recipe, with its own options but for the size."""
    return ftk.run(RECIPE, output=tmp_path_factory.mktemp("guarded") / "run", overrides=HALF)


@pytest.fixture(scope="module")
def plain(guarded: ftk.RunResult, tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    """The same without EWC; stage 1 is the same in both recipes, so it is taken over, not run again."""
    recipe, without = (load_recipe(RECIPE, overrides=HALF, without=names) for names in ([], ["ewc"]))
    assert recipe.stages[0] == without.stages[0]
    assert recipe.model == without.model
    folder = tmp_path_factory.mktemp("plain") / "run"
    RunFolder(folder, without).close()
    for stage in ("0-start", "1-capitals"):
        shutil.copytree(guarded.folder / "stages" / stage, folder / "stages" / stage)
    return ftk.run(without, output=folder)


def last_row(result: ftk.RunResult) -> list[float]:
    """``keyword_accuracy`` of capitals and currencies after both stages."""
    row: list[float] = result.report["matrix"]["keyword_accuracy"][-1]
    return row


def test_ewc_learns_the_new_and_keeps_the_old(guarded: ftk.RunResult) -> None:
    old, new = last_row(guarded)
    assert new >= 0.95
    assert old >= 0.95


def test_without_ewc_the_old_is_lost(plain: ftk.RunResult) -> None:
    old, new = last_row(plain)
    assert new >= 0.95
    assert old <= 0.30


def test_the_report_says_what_happened(guarded: ftk.RunResult) -> None:
    report: dict[str, Any] = guarded.report
    assert report["schema"] == 2
    assert report["status"] == "completed"
    assert report["tasks"] == ["capitals", "currencies"]
    assert set(report["start"]["keyword_accuracy"]) == {0.0}, "an untrained model knows nothing"
    (before, _), (after, _) = report["matrix"]["keyword_accuracy"]
    summary = report["summary"]["keyword_accuracy"]
    assert summary["retention"] == pytest.approx(after / before)
    assert summary["forgetting"] == pytest.approx(before - after)
    assert set(report["matrix"]) == {"keyword_accuracy", "keyword_accuracy@unseen_wording"}
    ewc = report["stages"][1]["mitigations"]["ewc"]
    assert ewc["seconds"] > 0
    assert ewc["tasks"]["capitals"]["trace"] > 0
