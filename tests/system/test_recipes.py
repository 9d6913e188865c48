"""The recipes that ship with ftk: each is right, says how it is run, and those that need no download run."""

from __future__ import annotations

import json
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ftk
from ftk.cli import cli

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
FACTS = [
    path
    for path in RECIPES
    if path.stem in ("budget", "ewc_lora", "lora", "progressive", "replay_full", "wise_interpolation")
]
"""Those that teach the same facts from ``world_facts`` to the same model from scratch, as questions and answers."""

SMALL = (
    "model={use='scratch', hidden_size=32, layers=1, heads=2, vocabulary_size=400}",
    *(
        f"stage.{stage}.{setting}"
        for stage in ("capitals", "currencies")
        for setting in (
            "data.train.limit=4",
            "data.test.limit=4",
            "training.steps=6",
            "training.batch_size=8",
            "training.learning_rate=1e-2",
        )
    ),
)
FLOOR = 0.95
"""A retention floor that a model as small as this meets with some of its drift, and not with all."""


def table(name: str) -> dict[str, Any]:
    (path,) = [path for path in RECIPES if path.stem == name]
    return tomllib.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_check_finds_nothing_wrong(recipe: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(recipe), "--json"])
    if recipe.stem == "qlora" and find_spec("bitsandbytes") is None:
        assert done.exit_code == 2
        assert "bitsandbytes, which is not installed: pip install bitsandbytes" in done.output
        return
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["notes"] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_is_named_after_its_file_and_says_how_to_run_it(recipe: Path) -> None:
    assert table(recipe.stem)["name"] == recipe.stem
    assert f"ftk run recipes/{recipe.name}" in recipe.read_text(encoding="utf-8").partition("\nname")[0]


def test_lora_is_ewc_lora_without_ewc() -> None:
    with_ewc, without = table("ewc_lora"), table("lora")
    (mitigation,) = with_ewc["stage"][1].pop("mitigation")
    assert mitigation["use"] == "ewc"
    assert {**with_ewc, "name": "lora"} == without


@pytest.mark.parametrize("name", [path.stem for path in FACTS])
def test_the_facts_recipes_start_alike(name: str) -> None:
    """What they keep can be compared: same model, same first stage, same questions."""
    recipe, other = table(name), table("ewc_lora")
    for key in ("model", "objective", "evaluator"):
        assert recipe[key] == other[key]
    for key in ("name", "adaptation", "training"):
        assert recipe["stage"][0][key] == other["stage"][0][key]
    for stage, expected in zip(recipe["stage"], other["stage"], strict=True):
        for role in ("train", "test"):
            assert stage["data"][role] == expected["data"][role]


def run_small(name: str, folder: Path, *overrides: str) -> dict[str, Any]:
    (path,) = [path for path in RECIPES if path.stem == name]
    result = ftk.run(path, output=folder / "run", overrides=[*SMALL, *overrides])
    assert result.report["status"] == "completed"
    assert result.report["tasks"] == ["capitals", "currencies"]
    assert (result.folder / "model" / "model.safetensors").is_file()
    return result.report


def test_replay_full_rehearses_the_capitals(tmp_path: Path) -> None:
    report = run_small("replay_full", tmp_path, "stage.currencies.mitigation.replay.buffer_size=10")
    capitals, currencies = report["stages"]
    assert capitals["mitigations"] == {}
    assert currencies["mitigations"]["replay"]["rows"] == {"capitals": 10}
    assert currencies["adaptation"] == "full"
    assert currencies["trainable_parameters"] == currencies["total_parameters"]


def test_progressive_is_full_tuning_that_begins_with_the_head(tmp_path: Path) -> None:
    with_replay, thawing = table("replay_full"), table("progressive")
    del with_replay["stage"][1]["mitigation"]
    assert thawing["stage"][1].pop("adaptation") == {"use": "progressive", "thawed_by": 0.3, "decay": 0.6}
    assert with_replay["stage"][1].pop("adaptation") == {"use": "full"}
    assert {**thawing, "name": "replay_full"} == with_replay
    _, currencies = run_small("progressive", tmp_path)["stages"]
    assert currencies["trainable_parameters"] == currencies["total_parameters"]


def test_wise_interpolation_takes_the_best_share_above_the_floor(tmp_path: Path) -> None:
    report = run_small(
        "wise_interpolation", tmp_path,
        "evaluator=[{use='perplexity'}]",  # so small a model answers nothing right, but its loss already moves
        "stage.capitals.data.validation.limit=4",
        "stage.currencies.data.validation.limit=4",
        f"stage.currencies.mitigation.interpolation.retention_floor={FLOOR}",
    )  # fmt: skip
    told = report["stages"][1]["mitigations"]["interpolation"]
    learned = {point["alpha"]: point["learned"] for point in told["curve"]}
    kept = {point["alpha"]: point["kept"]["capitals"] for point in told["curve"]}
    assert min(kept[0] / kept[share] for share in kept) < FLOOR, "the floor must have something to forbid"
    allowed = [share for share in kept if kept[0] / kept[share] >= FLOOR]
    assert told["alpha"] == min(allowed, key=lambda share: (learned[share], share))
    assert 0 < told["alpha"] < 1
    after, before = report["matrix"]["perplexity"][1][0], report["matrix"]["perplexity"][0][0]
    assert before / after > FLOOR - 0.1, "the exported model is the chosen one"


def test_budget_holds_its_floor_on_validation_rows(tmp_path: Path) -> None:
    with_budget, stepping_back = table("budget"), table("wise_interpolation")
    assert [part["use"] for part in with_budget["stage"][1].pop("mitigation")] == ["ewc", "budget"]
    del stepping_back["stage"][1]["mitigation"]
    assert {**with_budget, "name": "wise_interpolation"} == stepping_back
    report = run_small(
        "budget", tmp_path, "evaluator=[{use='perplexity'}]",
        "stage.capitals.data.validation.limit=4", "stage.currencies.data.validation.limit=4",
        f"stage.currencies.mitigation.budget.retention_floor={FLOOR}",
        "stage.currencies.mitigation.budget.every=2",
    )  # fmt: skip
    told = report["stages"][1]["mitigations"]["budget"]
    assert told["metric"] == "perplexity"
    assert [point["step"] for point in told["course"]] == [2, 4]
    assert told["whole"]["retention"]["capitals"] < FLOOR <= told["kept"]["retention"]["capitals"]
    assert told["strengths"]["ewc"] > table("budget")["stage"][1]["mitigation"][0]["strength"]
    assert 0 < told["share"] < 1


def test_bert_mlm_then_classify_measures_the_masked_words_through_their_head(tmp_path: Path) -> None:
    (path,) = [path for path in RECIPES if path.stem == "bert_mlm_then_classify"]
    small = [
        "model={use='scratch', architecture='bert', hidden_size=32, layers=1, heads=2, vocabulary_size=400}",
        "stage.reading.data.train.limit=6", "stage.reading.data.test.limit=6", "stage.reading.training.steps=40",
        "stage.telling_apart.data.train.limit=6", "stage.telling_apart.training.steps=20",
        "training.learning_rate=1e-2",
    ]  # fmt: skip
    words = []
    for without in ((), ("ewc",)):
        report = ftk.run(path, output=tmp_path / f"run{len(without)}", overrides=small, without=without).report
        assert report["tasks"] == ["reading", "telling_apart"]
        assert report["start"]["accuracy"][1] == pytest.approx(0.5, abs=0.2), "a head that is newly drawn"
        words.append([row[0] for row in report["matrix"]["perplexity"]])
    guarded, plain = words
    assert guarded[0] == plain[0] < 0.5 * 400
    assert plain[1] > 1.2 * plain[0], "full tuning loses what it read"
    assert plain[1] - guarded[1] > 0.5 * (plain[1] - plain[0]), "and EWC keeps most of it"


def test_multitask_teaches_three_tasks_at_once_and_a_later_stage_keeps_them_with_ewc(tmp_path: Path) -> None:
    (path,) = [path for path in RECIPES if path.stem == "multitask"]
    small = [
        "model={use='scratch', architecture='bert', hidden_size=32, layers=1, heads=2, vocabulary_size=400}",
        *(f"stage.together.data.train.parts.{part}.limit=4" for part in ("reading", "topic", "element")),
        *(f"stage.together.data.test.parts.{part}.limit=6" for part in ("reading", "topic", "element")),
        *(f"stage.together.data.test.parts.{part}.templates_per_fact=2" for part in ("topic", "element")),
        "stage.language.data.train.limit=4", "stage.language.data.test.limit=4",
        "stage.language.data.test.templates_per_fact=2", "stage.language.mitigation.ewc.samples=20",
        "stage.together.training.steps=300", "stage.language.training.steps=4", "training.learning_rate=1e-2",
    ]  # fmt: skip
    report = ftk.run(path, output=tmp_path / "run", overrides=small).report
    assert report["tasks"] == ["together/reading", "together/topic", "together/element", "language"]
    accuracy, perplexity = report["matrix"]["accuracy"], report["matrix"]["perplexity"]
    assert accuracy[0][1] > 0.6
    assert accuracy[0][2] > 0.8
    assert perplexity[0][0] < 0.4 * report["start"]["perplexity"][0]
    weights = report["stages"][0]["weights"]
    assert weights["element"] > weights["reading"], "the larger a loss, the less it weighs"
    assert report["stages"][1]["mitigations"]["ewc"]["tasks"].keys() == set(report["tasks"][:3])
