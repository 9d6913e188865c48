"""Stages that teach several tasks at once: what they leave, what is measured, and how they go on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import ftk
from ftk.cli import cli
from ftk.disk.bundles import read_bundle
from ftk.planning.machine import this_machine
from ftk.planning.plan import Planner
from ftk.recipe.reading import load_recipe
from tests.joint import AFTER, joint, mixed
from tests.system.forge import Death, Forge
from tests.system.small import events_of, report_of, untimed, weights, written
from tests.system.test_distributed import start_ranks

UNCERTAIN = 'weighting = "uncertainty", weight_learning_rate = 0.1, '


ALIGNED = joint(options=UNCERTAIN).replace("\nobjective", '\nmitigation = [{ use = "pcgrad" }]\nobjective')


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    """A joint stage and one after it."""
    folder = tmp_path_factory.mktemp("joint")
    return ftk.run(written(folder, joint(AFTER, options=UNCERTAIN)), output=folder / "run")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    """The joint stage by itself, in passes of two rows, the gradients of its tasks aligned."""
    folder = tmp_path_factory.mktemp("alone")
    return ftk.run(written(folder, ALIGNED), output=folder / "run")


def test_each_task_is_a_column_of_the_scores_by_the_evaluators_that_fit_it(done: ftk.RunResult) -> None:
    report = done.report
    assert report["tasks"] == ["joint/words", "joint/topic", "joint/tongue", "after"]
    assert [len(row) for row in report["matrix"]["accuracy"]] == [4, 4], "a row for each stage"
    for metric, measured in [("perplexity", [True, False, False, False]), ("accuracy", [False, True, True, True])]:
        for row in (report["start"][metric], *report["matrix"][metric]):
            assert [value is not None for value in row] == measured
    accuracy = report["matrix"]["accuracy"]
    lost = [accuracy[0][task] - accuracy[1][task] for task in (1, 2)]
    assert report["summary"]["accuracy"]["forgetting"] == pytest.approx(sum(lost) / 2), "of both, by a later stage"


def test_each_task_has_a_model_of_its_own_over_one_body(done: ftk.RunResult) -> None:
    """What a plain `transformers` loads is what the run measured."""
    folder = done.folder / "stages" / "1-joint" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    models: dict[str, Any] = {"": AutoModelForMaskedLM.from_pretrained(folder)}
    for name in ("topic", "tongue"):
        models[name] = AutoModelForSequenceClassification.from_pretrained(folder / "members" / name).eval()
        assert "AutoModelForSequenceClassification" in (folder / "members" / name / "README.md").read_text()
    assert "other heads, over the same body, each complete: `members/topic`, `members/tongue`" in (
        folder / "README.md"
    ).read_text(encoding="utf-8")
    assert list(models["tongue"].config.id2label.values()) == ["en", "zh"]
    bodies = [{n: w for n, w in m.bert.state_dict().items() if "pooler" not in n} for m in models.values()]
    for body in bodies[1:]:
        assert all(torch.equal(bodies[0][name], weight) for name, weight in body.items())
    rows = ftk_rows("tongue")
    with torch.no_grad():
        said = models["tongue"](**tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")).logits
    right = [models["tongue"].config.id2label[int(each.argmax())] == row["language"]
             for each, row in zip(said, rows, strict=True)]  # fmt: skip
    assert done.report["matrix"]["accuracy"][0][2] == pytest.approx(sum(right) / len(right))


def ftk_rows(task: str) -> list[dict[str, Any]]:
    from ftk_plugins.datasets.world_facts.options import WorldFactsOptions
    from ftk_plugins.datasets.world_facts.world_facts import WorldFacts

    assert task == "tongue"
    options = WorldFactsOptions(languages=("en", "zh"), templates_per_fact=1, relations=("symbol",), limit=4)
    found: list[dict[str, Any]] = WorldFacts(options).rows("test").to_list()
    return found


def test_a_later_stage_remembers_and_replays_each_task(done: ftk.RunResult) -> None:
    told = done.report["stages"][1]["mitigations"]
    tasks = {"joint/words", "joint/topic", "joint/tongue"}
    assert told["ewc"]["tasks"].keys() == told["replay"]["rows"].keys() == tasks
    assert told["pcgrad"]["pairs"] > 0


def test_weights_and_losses_are_told_of_each_task(done: ftk.RunResult) -> None:
    steps = [event for event in events_of(done.folder, "step") if event["stage"] == 1]
    assert [set(event["tasks"]) for event in steps] == [{"words", "topic", "tongue"}] * 5
    last, first = steps[-1]["tasks"], steps[0]["tasks"]
    assert first["words"]["loss"] > 4 > 1 > first["topic"]["loss"]
    assert all(0.5 < its["weight"] < 1 for its in last.values()), "of losses above half a nat the variance grows"
    facts = done.report["stages"][0]
    assert facts["weights"] == {name: its["weight"] for name, its in last.items()}
    assert "tasks" not in events_of(done.folder, "step")[-1]


def test_killed_and_resumed_it_ends_in_the_same_bits(forge: Forge, tmp_path: Path) -> None:
    recipe = written(tmp_path, joint(AFTER, options=UNCERTAIN, adaptation='{ use = "lora", rank = 4 }'))
    code, told = forge.run("run", recipe, "--output", tmp_path / "whole")
    assert code == 0, told
    for death in (Death("step", {"stage": 1, "step": 3}), Death("step", {"stage": 2, "step": 3})):
        code, told = forge.run("run", recipe, "--output", tmp_path / "run", death=death)
        assert code == -signal.SIGKILL, told
    code, told = forge.run("run", recipe, "--output", tmp_path / "run")
    assert code == 0, told
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert untimed(report_of(tmp_path / "run")) == untimed(report_of(tmp_path / "whole"))


def test_two_processes_end_where_one_does(alone: ftk.RunResult, forge: Forge, tmp_path: Path) -> None:
    recipe = written(tmp_path, ALIGNED)
    ranks = start_ranks(forge, "run", recipe, "--output", tmp_path / "run")
    for rank in ranks:
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    assert_near(tmp_path / "run", alone.folder)
    assert report_of(tmp_path / "run")["stages"][0]["weights"] == pytest.approx(weights_of(alone), rel=1e-5)


def test_no_cut_into_passes_changes_it(alone: ftk.RunResult, tmp_path: Path) -> None:
    whole = ftk.run(written(tmp_path, ALIGNED.replace("micro_batch_size = 2\n", "")), output=tmp_path / "run")
    assert_near(whole.folder, alone.folder)
    told = [result.report["stages"][0]["mitigations"]["pcgrad"] for result in (alone, whole)]
    assert [its["pairs"] for its in told] == [11, 11]
    assert told[0]["conflicts"] == told[1]["conflicts"] > 0
    assert weights_of(whole) == pytest.approx(weights_of(alone), rel=1e-5)


def weights_of(result: ftk.RunResult) -> dict[str, float]:
    found: dict[str, float] = result.report["stages"][0]["weights"]
    return found


def assert_near(run: Path, other: Path) -> None:
    files = [path.relative_to(other) for path in other.glob("stages/1-joint/model/**/model.safetensors")]
    assert len(files) == 3
    for file in files:
        there, here = load_file(other / file), load_file(run / file)
        for name, weight in there.items():
            torch.testing.assert_close(here[name], weight, atol=1e-4, rtol=1e-3, msg=f"{file}: {name}")


def test_a_small_part_is_repeated_and_a_plan_counts_every_head(tmp_path: Path) -> None:
    options = 'temperature = 100, when_out = "repeat", '
    text = joint().replace(f"train = {mixed(6)}", f"train = {mixed(6, options)}")
    recipe = load_recipe(written(tmp_path, text))
    planner = Planner(recipe, this_machine(1))
    plan = planner.stage(1)
    assert plan.unknown == ""
    assert {rows.task: round(rows.passes * len(rows.roles["train"].rows)) for rows in planner.job.rows} == {
        "joint/words": 12, "joint/topic": 12, "joint/tongue": 12,
    }  # fmt: skip
    held = next(station for station in plan.stations if station.name == "step").parts
    trained = planner.set_up(1, planner.outline(1)).plan()["trainable_parameters"]
    assert held["gradients"] == 4 * trained
    own = [name for name in planner.outline(1).beside if "classifier.weight" in name or "pooler" in name]
    assert len(own) == 6, "of two heads a classifier and a pooler's weight and bias"


def test_ewc_holds_the_heads_that_are_trained_beside_the_first(tmp_path: Path) -> None:
    """A second joint stage has all heads again: what the first one's tasks depend on is held in each of them."""
    again = joint().partition("[[stage]]")[2].replace('name = "joint"', 'name = "again"')
    guarded = again.replace("[stage.data]", '[[stage.mitigation]]\nuse = "ewc"\nsamples = 6\n[stage.data]')
    result = ftk.run(written(tmp_path, joint(f"[[stage]]{guarded}")), output=tmp_path / "run")
    state = read_bundle(result.folder / "stages" / "2-again" / "state")[0]["mitigation.ewc"]
    fisher = {name: value for name, value in state.items() if name.startswith("fisher/")}
    heads = [name for name in fisher if name.endswith(":classifier.weight")]
    assert len(heads) == 2, "each under a name of its own"
    assert all(float(fisher[name].sum()) > 0 for name in heads)
    told = result.report["stages"][1]["mitigations"]["ewc"]
    assert told["guarded_weights"] == sum(value.numel() for value in fisher.values())


def test_rows_of_a_task_can_be_compared_with_each_other(tmp_path: Path) -> None:
    """Negatives are the task's own rows of the step, however it is cut."""
    table = 'use = "contrastive", anchor = "instruction", positive = "output"'
    text = joint().replace('use = "masked_lm"', table).replace('{ use = "perplexity" }, ', "")
    ends = []
    for name, one in (("cut", text), ("whole", text.replace("micro_batch_size = 2\n", ""))):
        result = ftk.run(written(tmp_path, one, f"{name}.toml"), output=tmp_path / name, overrides=["training.steps=3"])
        ends.append(load_file(result.folder / "model" / "members" / "topic" / "model.safetensors"))
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, atol=1e-4, rtol=1e-3, msg=name)


def test_data_are_told_of_each_task(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["data", str(written(tmp_path, joint())), "--json", "--save", str(tmp_path / "rows")]
    )
    assert done.exit_code == 0, done.output
    told = {task["task"]: task for task in json.loads(done.stdout)["tasks"]}
    assert list(told) == ["joint/words", "joint/topic", "joint/tongue"]
    assert told["joint/topic"]["roles"]["train"]["rows"] == 12
    assert (tmp_path / "rows" / "joint" / "tongue" / "train.parquet").is_file()


def test_what_is_chosen_on_validation_data_goes_by_the_mean_over_the_tasks(tmp_path: Path) -> None:
    chosen = """
mitigation = [{ use = "interpolation", alpha = "validation", alphas = [0.5, 1.0], metric = "accuracy" }]
objective"""
    text = joint().replace("\nobjective", chosen).replace("test = {", f"validation = {mixed(4)}\ntest = {{")
    watched = ["training.evaluate_every=5", "training.best_by=accuracy", "training.keep=best"]
    report = ftk.run(written(tmp_path, text), output=tmp_path / "run", overrides=watched).report
    (stage,) = report["stages"]
    scores = stage["history"][0]["scores"]
    assert scores.keys() == set(report["tasks"])
    accuracy = [scores[task]["accuracy"] for task in ("joint/topic", "joint/tongue")]
    assert stage["history"][0]["criterion"] == pytest.approx(sum(accuracy) / 2)
    told = stage["mitigations"]["interpolation"]
    ends = [value for value in report["matrix"]["accuracy"][0] if value is not None]
    assert told["learned"] == pytest.approx(sum(ends) / 2), "the test rows are those of validation"
