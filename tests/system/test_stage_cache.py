"""The stage cache: what is taken from it is what would have been trained, and nothing else is taken."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import ftk
from ftk.comparing.keys import measured_keys, stage_keys
from ftk.comparing.stages import KeptStages
from ftk.events import Events
from ftk.parts import ModelSource
from ftk.processes.meeting import make_accelerator
from ftk.recipe.building import build
from ftk.recipe.reading import load_recipe
from ftk.running.pipeline import Run
from tests.system.small import PIPELINE, events_of, report_of, untimed, weights, written

RANK = "stage.currencies.adaptation.rank=2"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(autouse=True)
def alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTK_CACHE", str(cache))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def run(folder: Path, *settings: str, keeper: KeptStages | None = None) -> Path:
    recipe = written(folder.parent, PIPELINE)
    ftk.run(recipe, output=folder, overrides=settings, keeper=keeper)
    return folder


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that trains what others find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTK_CACHE", str(cache))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        return run(tmp_path_factory.mktemp("first") / "run", keeper=KeptStages())


def trained(run: Path) -> list[int]:
    return [event["stage"] for event in events_of(run, "stage_started")]


def without_origin(report: dict[str, Any]) -> Any:
    for stage in report["stages"]:
        stage.pop("from_cache", None)
    return untimed({**report, "recipe_sha256": ""})


def test_a_shared_stage_is_trained_once_and_the_run_ends_with_the_same_bits(first: Path, tmp_path: Path) -> None:
    shared = run(tmp_path / "shared", RANK, keeper=KeptStages())
    alone = run(tmp_path / "alone", RANK)
    assert trained(first) == [1, 2]
    assert trained(shared) == [2]
    assert [stage.get("from_cache") for stage in report_of(shared)["stages"]] == [True, None]
    assert weights(shared) == weights(alone)
    assert without_origin(report_of(shared)) == without_origin(report_of(alone))
    assert (shared / "rows.safetensors").read_bytes() == (alone / "rows.safetensors").read_bytes()


def test_a_task_that_is_measured_otherwise_is_measured_anew(first: Path, tmp_path: Path) -> None:
    fewer = "stage.capitals.data.test.limit=2"
    shared = run(tmp_path / "shared", fewer, keeper=KeptStages())
    alone = run(tmp_path / "alone", fewer)
    assert trained(shared) == []
    measured = {(event["after"], event["task"]) for event in events_of(shared, "measured")}
    assert measured == {(after, "capitals") for after in range(3)}
    assert report_of(shared)["matrix"]["keyword_accuracy"] == report_of(alone)["matrix"]["keyword_accuracy"]
    ours, theirs = (report_of(folder)["matrix"]["perplexity"] for folder in (shared, alone))
    assert ours == [pytest.approx(row, rel=1e-5) for row in theirs], "LoRA's stage is measured as it was merged"
    cards = [(folder / "model" / "README.md").read_text() for folder in (shared, alone)]
    assert cards[0] == cards[1], "the card tells of this run"


def keys(folder: Path, *settings: str) -> tuple[list[str], dict[str, str]]:
    """The keys of a run's stages and of its measurements, by its rows and nothing that it trained."""
    recipe = load_recipe(written(folder, PIPELINE), overrides=settings)
    run = Run(recipe, None, make_accelerator(), Events([]), lambda: False)
    run.source = build(recipe.model, ModelSource)
    run.read_rows()
    return stage_keys(run), measured_keys(run)


@pytest.mark.parametrize(
    ("setting", "shared"),
    [
        ("seed=4", 0), ("model.layers=2", 0), ("data.retain.limit=5", 0), ("stage.capitals.data.train.limit=5", 0),
        ("stage.currencies.data.train.limit=5", 0),  # this model source trains its tokenizer on all rows
        ("training.precision=bf16", 0), ("training.batch_size=2", 0),
        ("training.learning_rate=1e-3", 1), ("mitigation.ewc.strength=0.3", 1), ("training.steps=8", 1),
        ("mitigation.replay.share=0.2", 1), ("stage.capitals.adaptation.use=layerwise_lr", 1),
        ("stage.currencies.adaptation.rank=2", 2), ("stage.currencies.training.optimizer=sgd", 2),
        ("training.log_every=5", 3), ("name=other", 3), ("stage.capitals.data.test.limit=2", 3),
        ("evaluator.keyword_accuracy.max_new_tokens=2", 3),
    ],
)  # fmt: skip
def test_whatever_a_stage_depends_on_makes_another_of_it(tmp_path: Path, setting: str, shared: int) -> None:
    """That is: of the starting model's scores and the two stages so many are those of the recipe as it is."""
    found, expected = keys(tmp_path, setting)[0], keys(tmp_path)[0]
    assert [one == other for one, other in zip(found, expected, strict=True)] == [n < shared for n in range(3)]


def test_evaluators_count_where_a_stage_can_choose_by_them(tmp_path: Path) -> None:
    validated = 'stage.capitals.data.validation={ use = "world_facts", relations = "capital", limit = 2 }'
    fewer = "evaluator.keyword_accuracy.max_new_tokens=2"
    found, expected = keys(tmp_path, validated, fewer)[0], keys(tmp_path, validated)[0]
    assert [one == other for one, other in zip(found, expected, strict=True)] == [True, False, False]


def test_scores_go_with_the_test_rows_and_evaluators_of_their_task(tmp_path: Path) -> None:
    expected = keys(tmp_path)[1]
    for setting, others in (
        ("stage.capitals.data.test.limit=2", {"capitals"}),
        ("data.retain_test.limit=2", {"retain"}),
        ("evaluator.keyword_accuracy.max_new_tokens=2", {"retain", "capitals", "currencies"}),
        ("mitigation.ewc.strength=0.3", set()),
    ):
        found = keys(tmp_path, setting)[1]
        assert {task for task in expected if found[task] != expected[task]} == others


def test_damage_in_the_cache_is_no_harm(first: Path, cache: Path, tmp_path: Path) -> None:
    for config in cache.glob("stage-*/stage/model/config.json"):
        with config.open("a") as file:
            file.write(" ")
    again = run(tmp_path / "again", keeper=KeptStages())
    assert trained(again) == [1, 2]
    assert weights(again) == weights(first)


def in_a_process(folder: Path, setting: str) -> None:
    run(folder, setting, keeper=KeptStages())


def test_of_two_processes_one_trains_and_one_that_is_killed_is_no_hindrance(tmp_path: Path) -> None:
    """The first holds stage 1 and is killed in it; of the two that want the same one trains it, the other waits."""
    context, seed = multiprocessing.get_context("spawn"), "seed=11"  # a fork of a process with threads can hang
    killed = context.Process(target=in_a_process, args=(tmp_path / "a" / "run", seed))
    killed.start()
    while not (tmp_path / "a" / "run" / "stages" / "0-start").is_dir():
        assert killed.is_alive(), "it ended before it was killed"
        time.sleep(0.02)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    others = [context.Process(target=in_a_process, args=(tmp_path / name / "run", seed)) for name in ("b", "c")]
    for process in others:
        process.start()
    for process in others:
        process.join()
    assert [process.exitcode for process in others] == [0, 0]
    told = [trained(tmp_path / name / "run") for name in ("b", "c")]
    assert sum(1 in stages for stages in told) == 1
    assert weights(tmp_path / "b" / "run") == weights(tmp_path / "c" / "run")
