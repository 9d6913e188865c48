"""`ftk run` and `ftk.run`: what they print, what they write, and stages that differ."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import ftk
from ftk.cli import cli
from ftk.events import EVENT_KINDS
from ftk.recipe.reading import load_recipe
from ftk.running.runner import dry_run
from tests.system.small import FACTS, HEAD, ONE_STAGE, PIPELINE, events_of, report_of, untimed, written


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["run", *map(str, arguments)])


@dataclass(frozen=True)
class Done:
    """A finished run of the pipeline, and what the command printed."""

    recipe: Path
    folder: Path
    result: Result


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("done")
    recipe = written(folder, PIPELINE + "\n# A comment that stays.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        result = command(recipe, "--output", folder / "run")
    assert result.exit_code == 0, result.output
    return Done(recipe, folder / "run", result)


def test_the_folder_holds_what_is_promised(done: Done) -> None:
    assert {entry.name for entry in done.folder.iterdir()} == {
        "recipe.toml", "recipe.resolved.json", "environment.json", "run.lock", "events.jsonl", "stages", "model",
        "report.json", "rows.safetensors",
    }  # fmt: skip
    assert {entry.name for entry in (done.folder / "stages").iterdir()} == {"0-start", "1-capitals", "2-currencies"}
    assert (done.folder / "recipe.toml").read_text() == done.recipe.read_text()
    resolved = json.loads((done.folder / "recipe.resolved.json").read_text())
    assert resolved["sha256"] == report_of(done.folder)["recipe_sha256"]
    assert resolved["recipe"]["stages"][1]["adaptation"]["options"]["rank"] == 4
    environment = json.loads((done.folder / "environment.json").read_text())
    assert environment["libraries"]["torch"] == torch.__version__
    assert {"ftk", "python", "platform", "device", "threads", "command", "working_directory"} <= environment.keys()
    pickles = [path for path in done.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not pickles


def test_the_report_has_its_shape(done: Done) -> None:
    report = report_of(done.folder)
    assert report.keys() == {
        "schema", "status", "name", "recipe_sha256", "ftk", "seed", "tasks", "matrix", "higher_is_better", "start",
        "summary", "details", "stages",
    }  # fmt: skip
    assert (report["schema"], report["status"], report["name"]) == (2, "completed", "small")
    assert report["tasks"] == ["retain", "capitals", "currencies"]
    assert report["higher_is_better"] == {"keyword_accuracy": True, "perplexity": False}
    for metric in ("keyword_accuracy", "perplexity"):
        assert [len(row) for row in report["matrix"][metric]] == [3, 3, 3]
        assert report["matrix"][metric][0] == report["start"][metric], "the retained task's row is the starting model"
        assert report["summary"][metric].keys() == {
            "average", "average_incremental", "learning_accuracy", "backward_transfer", "forward_transfer",
            "forgetting", "retention",
        }  # fmt: skip
    assert report["details"].keys() == {"keyword_accuracy", "perplexity"}
    for metric, measured in report["details"].items():
        for told in measured:
            after, column = told["after"], report["tasks"].index(told["task"])
            least, most = told["interval"]
            assert least <= report["matrix"][metric][after][column] <= most
    perplexity = report["matrix"]["perplexity"]
    assert perplexity[1][1] < perplexity[0][1], "stage 1 learned the capitals"
    assert perplexity[2][2] < perplexity[1][2], "stage 2 learned the currencies"
    assert [stage["name"] for stage in report["stages"]] == ["capitals", "currencies"]
    for stage, adaptation in zip(report["stages"], ("full", "lora"), strict=True):
        assert stage["steps"] == 9
        assert stage["adaptation"] == adaptation
        assert all(stage[key] > 0 for key in ("tokens", "seconds", "tokens_per_second", "peak_memory_bytes"))
        assert stage["mitigations"].keys() == {"ewc", "replay"}
        assert stage["mitigations"]["ewc"]["seconds"] > 0
    full, lora = report["stages"]
    assert full["trainable_parameters"] == full["total_parameters"]
    assert 0 < lora["trainable_parameters"] < lora["total_parameters"]


def test_every_event_is_logged_as_it_is_documented(done: Done) -> None:
    events = events_of(done.folder)
    kinds = [event["kind"] for event in events]
    assert set(kinds) == set(EVENT_KINDS) - {"warning", "evaluated"}
    assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
    assert kinds.count("step") == 18
    assert [event["step"] for event in events_of(done.folder, "checkpoint")] == [0, 3, 6, 9] * 2
    assert [(event["after"], event["task"]) for event in events_of(done.folder, "measured")] == [
        (after, task) for after in (0, 1, 2) for task in ("retain", "capitals", "currencies")
    ]
    assert all(one["time"] <= two["time"] for one, two in pairwise(events))
    for kind in ("run_started", "stage_started", "step", "checkpoint", "stage_finished"):
        of_one_task = EVENT_KINDS[kind].partition("; of several tasks")[0]
        named = re.sub(r" \(.*?\)", "", of_one_task).split(", ")
        assert all(event.keys() == {"time", "kind", *named} for event in events_of(done.folder, kind)), kind


def test_the_model_loads_without_ftk(done: Done) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(done.folder / "model")
    merged = AutoModelForCausalLM.from_pretrained(done.folder / "model").eval()
    before = AutoModelForCausalLM.from_pretrained(done.folder / "stages" / "1-capitals" / "model").eval()
    ids = tokenizer("What is the currency of Japan? ", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = merged(ids).logits
        assert not torch.allclose(before(ids).logits, expected, atol=1e-3)
        adapted = PeftModel.from_pretrained(before, done.folder / "model" / "adapter").eval()
        torch.testing.assert_close(adapted(ids).logits, expected, atol=1e-4, rtol=1e-4)
    card = (done.folder / "model" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "perplexity" in card


def test_the_command_shows_what_was_learned_and_lost(done: Done) -> None:
    printed = done.result.stdout
    for said in ("small on cpu", "reading data", "stage 1: capitals", "stage 2: currencies", "perplexity"):
        assert said in printed
    assert f"model and report.json: {done.folder}" in printed  # no page is written in tests
    assert "\x1b" not in printed
    assert [line for line in printed.splitlines() if line != line.rstrip()] == []


def test_a_finished_run_is_told_and_not_run_again(done: Done) -> None:
    again = command(done.recipe, "--output", done.folder)
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith("this run is finished; --fresh starts it over\n")
    assert "reading data" not in again.stdout


@pytest.mark.parametrize("other", ["--json", "--dry-run"])
def test_explain_goes_alone(other: str, done: Done) -> None:
    refused = command(done.recipe, "--explain", other)
    assert refused.exit_code == 2
    assert f"--explain and {other} do not go together" in refused.stderr


def test_dry_run_counts_and_writes_nothing(done: Done, here: Path) -> None:
    told = command(done.recipe, "--dry-run")
    assert told.exit_code == 0, told.output
    assert "stage currencies: 6 rows" in told.stdout
    assert "nothing was trained; rows that were encoded are kept for the run" in told.stdout

    plan = json.loads(command(done.recipe, "--dry-run", "--json").stdout)
    for stage, then in zip(plan, events_of(done.folder, "stage_started"), strict=True):
        for key in ("name", "steps", "rows", "trainable_parameters", "total_parameters"):
            assert stage[key] == then[key]
    assert list(here.iterdir()) == []


def test_dry_run_counts_the_rows_that_are_mixed_in(here: Path) -> None:
    """A quarter of the mix is replayed: of 24 rows an epoch, 8 steps of 4 rows in place of 6."""
    text = PIPELINE.replace("steps = 9\n", "").replace("limit = 6", "limit = 24")
    [first, second] = dry_run(load_recipe(written(here, text), overrides=["training.epochs=1"]))
    assert [first["steps"], second["steps"]] == [8, 8]
    assert first["sources"] == [{"name": "replay", "share": 0.25}]


def test_explain_shows_the_stations_and_writes_nothing(done: Done, here: Path) -> None:
    told = command(done.recipe, "--explain")
    assert told.exit_code == 0, told.output
    for said in (
        "remember what came before: ewc, replay",
        "mix in rows: replay",
        "edit gradients: ewc",
        "attach: lora",
    ):
        assert said in told.stdout
    assert list(here.iterdir()) == []


def test_json_is_the_report_and_nothing_else(here: Path) -> None:
    result = command(written(here, ONE_STAGE), "--json", "--set", "training.steps=2")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == report_of(here / "runs" / "small")
    assert result.stderr == ""


def test_set_and_without_make_a_run_of_their_own(here: Path) -> None:
    recipe = written(here, PIPELINE)
    short = ("--set", "training.steps=1", "--set", "evaluator=[]")
    assert command(recipe, "--without", "ewc", *short).exit_code == 0
    assert command(recipe, "--without", "replay", "--without", "ewc", *short).exit_code == 0
    assert {folder.name for folder in (here / "runs").iterdir()} == {
        "small-without-ewc",
        "small-without-ewc-without-replay",
    }
    stages = report_of(here / "runs" / "small-without-ewc")["stages"]
    assert [stage["mitigations"].keys() for stage in stages] == [{"replay"}, {"replay"}]
    assert [stage["steps"] for stage in stages] == [1, 1]


def test_a_run_from_python_gives_its_report(done: Done, here: Path) -> None:
    """The same numbers as the command's, bit for bit."""
    seen: list[str] = []
    result = ftk.run(done.recipe, output="mine", observers=[lambda event: seen.append(event.kind)])
    assert result.folder == Path("mine")
    assert result.report == report_of(result.folder)
    assert untimed(result.report) == untimed(report_of(done.folder))
    assert seen == [event["kind"] for event in events_of(result.folder)]


def test_a_mitigation_may_begin_in_a_later_stage(here: Path) -> None:
    """It remembers all that came before it."""
    late = PIPELINE.replace('name = "capitals"', 'name = "capitals"\nmitigation = []')
    result = ftk.run(written(here, late), overrides=["training.steps=2", "evaluator=[]"])
    first, second = result.report["stages"]
    assert first["mitigations"] == {}
    assert second["mitigations"]["replay"]["rows"] == {"retain": 6, "capitals": 6}
    assert second["mitigations"]["ewc"]["tasks"].keys() == {"retain", "capitals"}


def test_a_mitigation_that_pauses_keeps_what_it_knows(here: Path) -> None:
    """In the third stage replay goes on with what it remembered for the first, and catches up on the second."""
    third = f"""{PIPELINE.replace('name = "currencies"', 'name = "currencies"' + chr(10) + "mitigation = []")}
[[stage]]
name = "codes"
adaptation = {{ use = "lora", rank = 2 }}
[stage.data]
train = {{ {FACTS}, relations = "iso_code_3", limit = 6 }}
"""
    result = ftk.run(written(here, third), overrides=["training.steps=2", "evaluator=[]", "mitigation.ewc.samples=2"])
    told = [stage["mitigations"] for stage in result.report["stages"]]
    assert told[1] == {}
    assert told[2]["replay"]["rows"] == {"retain": 6, "capitals": 6, "currencies": 6}
    assert told[2]["ewc"]["tasks"]["retain"] == told[0]["ewc"]["tasks"]["retain"]
    assert told[2]["ewc"]["tasks"].keys() == {"retain", "capitals", "currencies"}


def test_the_objective_may_change_between_stages(here: Path) -> None:
    (here / "texts.txt").write_text("Some text of the field.\nMore of it, and more.\nAnd a third line.\n")
    text = f"""{HEAD}
[adaptation]
use = "full"
[[evaluator]]
use = "perplexity"
[[stage]]
name = "reading"
objective = {{ use = "causal_lm", packing = false }}
data.train = {{ use = "files", path = "texts.txt" }}
data.test = {{ use = "files", path = "texts.txt" }}
data.overlap = "allow"
[[stage]]
name = "answering"
data.train = {{ {FACTS}, relations = "capital", limit = 6 }}
data.test = {{ {FACTS}, relations = "capital", limit = 3 }}
data.overlap = "allow"
mitigation = [{{ use = "replay", share = 0.5 }}]
"""
    report = ftk.run(written(here, text)).report
    assert [stage["objective"] for stage in report["stages"]] == ["causal_lm", "instruction"]
    start, (after_reading, after_answering) = report["start"]["perplexity"], report["matrix"]["perplexity"]
    assert after_reading[0] < start[0]
    assert after_answering[1] < after_reading[1]


def test_rows_are_encoded_once_for_all_seeds_and_ablations(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTK_CACHE", str(here / "cache"))
    recipe = written(here, ONE_STAGE)
    ftk.run(recipe, output=here / "first")
    kept = {path: path.stat().st_mtime_ns for path in (here / "cache").rglob("*")}
    assert kept
    ftk.run(recipe, output=here / "second", overrides=["seed=4", "training.learning_rate=1e-3"])
    assert {path: path.stat().st_mtime_ns for path in (here / "cache").rglob("*")} == kept
    counted = [
        [
            event["done"]
            for event in events_of(here / name, "phase")
            if event["text"] == "encoding rows" and "done" in event
        ]
        for name in ("first", "second")
    ]
    assert counted == [[6], []]
