"""Recipes of sequences, shortened: digits of scikit-learn in the place of MNIST's, and a smaller stream of facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ftk
from ftk.recipe.reading import load_recipe
from tests import material
from tests.conftest import fetched
from tests.mnist import rows_of

ROOT = Path(__file__).parents[2]
SMALL = (
    "data.train.path='recipes/data/digits-train.parquet'", "data.test.path='recipes/data/digits-test.parquet'",
    "model.image_size=8", "model.hidden_size=64", "training.batch_size=64", "training.learning_rate=3e-3",
)  # fmt: skip


def run(name: str, folder: Path, *overrides: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of a shortened recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        path = ROOT / "recipes" / f"{name}.toml"
        return ftk.run(path, output=folder / "run", overrides=[*SMALL, *overrides], without=without).report


def test_split_mnist_forgets_without_ewc_and_keeps_with_it(tmp_path: Path) -> None:
    settings = ("training.steps=40", "training.learning_rate=2e-2", "sequence.values=[[0, 1], [2, 3], [4, 5]]")
    kept = run("split_mnist", tmp_path / "ewc", *settings, "mitigation.ewc.samples=100")
    lost = run("split_mnist", tmp_path / "none", *settings, without=("ewc",))
    assert kept["tasks"] == ["0-1", "2-3", "4-5"]
    summary, other = (report["summary"]["accuracy"] for report in (kept, lost))
    assert summary["learning_accuracy"] > 0.9
    assert summary["forgetting"] < other["forgetting"] - 0.02
    assert summary["average"] > other["average"]


def test_split_mnist_classes_is_kept_by_replay(tmp_path: Path) -> None:
    three = "sequence.values=[[0, 1], [2, 3], [4, 5]]"
    kept = run("split_mnist_classes", tmp_path, "training.steps=60", three)
    assert kept["matrix"]["accuracy"][0][1:] == [0.0, 0.0]
    assert min(kept["matrix"]["accuracy"][-1]) > 0.7


def test_permuted_mnist_is_one_head_for_all_orders(tmp_path: Path) -> None:
    report = run("permuted_mnist", tmp_path, "training.steps=80", "sequence.values=[0, 1]")
    assert report["tasks"] == ["order0", "order1"]
    rows = report["matrix"]["accuracy"]
    assert min(rows[0][0], rows[1][1]) > 0.75
    assert rows[0][1] < 0.5, "in another order the same digits are new"


def test_the_three_differ_in_how_tasks_are_made() -> None:
    specs = {name: load_recipe(ROOT / "recipes" / f"{name}.toml") for name in ("split_mnist", "split_mnist_classes")}
    tasks, classes = specs["split_mnist"], specs["split_mnist_classes"]
    assert [stage.data for stage in tasks.stages] == [stage.data for stage in classes.stages]
    assert [stage.training for stage in tasks.stages] == [stage.training for stage in classes.stages]
    assert tasks.model == classes.model


def test_facts_stream_learns_one_relation_after_another(tmp_path: Path) -> None:
    small = [
        "model={use='scratch', hidden_size=32, layers=1, heads=2, vocabulary_size=400}",
        *(f"stage.{stage}.data.{role}.limit=4" for stage in ("capital", "more") for role in ("train", "test")),
        "stage.capital.training.steps=4", "stage.more.training.steps=4", "training.batch_size=8",
        "stage.more.mitigation.replay.buffer_size=10", 'stage.more.sequence.values=["currency", "symbol"]',
    ]  # fmt: skip
    report = ftk.run(ROOT / "recipes" / "facts_stream.toml", output=tmp_path / "run", overrides=small).report
    assert report["tasks"] == ["capital", "currency", "symbol"]
    assert report["stages"][2]["mitigations"]["replay"]["rows"].keys() == {"capital", "currency"}


def test_images_of_the_package_become_rows(tmp_path: Path) -> None:
    """Ten files of shades, 784 an image, a last one that is cut short left out."""
    for label in range(10):
        shades = [0.1 * label] * 784 + [1] + [0] * 783 + [0.5] * 3
        (tmp_path / f"{label}.json").write_text(json.dumps({"data": shades}), encoding="utf-8")
    rows = rows_of(tmp_path)
    assert len(rows) == 20
    assert {row["label"] for row in rows} == set(range(10))
    assert all(len(row["image"]) == 28 and {len(line) for line in row["image"]} == {28} for row in rows)
    ones = [row for row in rows if row["image"][0][0] == 255]
    assert len(ones) == 10
    assert ones[0]["image"][0][1] == 0
    assert rows == rows_of(tmp_path)


@pytest.mark.real_model
def test_text_stream_learns_one_task_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the rows of the recipe, with a small encoder in place of the real one."""
    fetched(lambda: material.write_rows(tmp_path / "material"))
    monkeypatch.chdir(tmp_path)
    roles = ("train", "validation", "test")
    small = [
        "model={use='scratch', architecture='bert', hidden_size=32, layers=1, heads=2, vocabulary_size=500}",
        *(f"stage.{stage}.data.{role}.limit=24" for stage in ("films", "more") for role in roles),
        "training.steps=2", "training.batch_size=4", "stage.more.sequence.values=['sources', 'products']",
    ]  # fmt: skip
    report = ftk.run(ROOT / "recipes" / "text_stream.toml", output=tmp_path / "run", overrides=small).report
    assert report["tasks"] == ["films", "sources", "products"]
    assert report["stages"][2]["mitigations"]["replay"]["rows"] == {"films": 24, "sources": 24}
    films, sources, products = report["stages"]
    assert films["total_parameters"] == products["total_parameters"], "two tasks of the same labels share a head"
    assert sources["total_parameters"] > films["total_parameters"]
