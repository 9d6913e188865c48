"""A finished run goes on with stages that its recipe has gained, and ends as the longer recipe run at once does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ftk
from ftk.errors import Interrupted, UserError
from ftk.events import RunEvent
from ftk.recipe.growing import difference
from ftk.recipe.reading import load_recipe
from ftk.running.runner import run as run_recipe
from tests.system.small import FACTS, HEAD, ONE_STAGE, events_of, report_of, untimed, weights, written

RECIPE = f"""{HEAD.replace("steps = 9", "steps = 5")}
[data]
retain = {{ {FACTS}, relations = "iso_code", limit = 6 }}
retain_test = {{ {FACTS}, relations = "iso_code", limit = 3 }}
train = {{ {FACTS}, relations = "{{value}}", limit = 6 }}
test = {{ {FACTS}, relations = "{{value}}", limit = 3 }}
overlap = "allow"
[adaptation]
use = "lora"
rank = 4
[[mitigation]]
use = "ewc"
samples = 6
[[mitigation]]
use = "replay"
share = 0.25
[[evaluator]]
use = "perplexity"
[sequence]
values = VALUES
"""
ONE, TWO, THREE = '["capital"]', '["capital", "currency"]', '["capital", "currency", "iso_code_3"]'


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recipe on a model that is there before it, so that it is the same whatever is learned."""
    folder = tmp_path_factory.mktemp("start")
    started = ftk.run(written(folder, ONE_STAGE), output=folder / "run", overrides=["training.steps=1"]).folder
    scratch = HEAD[HEAD.index("[model]") : HEAD.index("[objective]")]
    return RECIPE.replace(scratch, f'[model]\nuse = "pretrained"\npath = "{started / "model"}"\n')


def run(here: Path, text: str, values: str, name: str, *overrides: str) -> ftk.RunResult:
    return ftk.run(written(here, text.replace("VALUES", values)), output=here / name, overrides=overrides)


def test_stages_that_are_added_are_learned_as_if_they_had_always_been_there(here: Path, text: str) -> None:
    whole = run(here, text, THREE, "whole")
    run(here, text, TWO, "grown")
    stopped: list[RunEvent] = []

    def stop_in_the_new_stage(event: RunEvent) -> None:
        if event.kind == "step" and event.data["stage"] == 3 and event.data["step"] == 4:
            stopped.append(event)

    longer = load_recipe(written(here, text.replace("VALUES", THREE)))
    with pytest.raises(Interrupted):  # it may be stopped on its way, like any run
        run_recipe(longer, output=here / "grown", observers=[stop_in_the_new_stage], stop=lambda: bool(stopped))
    first = (here / "grown" / "stages" / "1-capital" / "manifest.json").stat().st_mtime_ns
    grown = run(here, text, THREE, "grown")

    assert weights(whole.folder) == weights(grown.folder)
    assert (here / "grown" / "stages" / "1-capital" / "manifest.json").stat().st_mtime_ns == first
    assert [event["stage"] for event in events_of(grown.folder, "stage_started")] == [1, 2, 3, 3]
    for name in ("ewc", "replay"):
        told = [untimed(report["stages"][2]["mitigations"][name]) for report in (whole.report, grown.report)]
        assert told[0] == told[1]

    # What came later is measured on the start and on what the last stage left, as at once; between it is not.
    rows, expected = (report["matrix"]["perplexity"] for report in (grown.report, whole.report))
    assert rows[:2] == [expected[0], [*expected[1][:3], None]]
    assert rows[2] == [*expected[2][:3], pytest.approx(expected[2][3], rel=1e-5)], (
        "LoRA is merged by now, and rounds so"
    )
    assert rows[3] == expected[3]
    assert grown.report["start"] == whole.report["start"]
    for key, value in whole.report["summary"]["perplexity"].items():
        assert grown.report["summary"]["perplexity"][key] == pytest.approx(value, rel=1e-4)
    assert load_recipe(grown.folder / "recipe.toml").sha256 == grown.report["recipe_sha256"]
    assert run(here, text, THREE, "grown").report == grown.report, "it is finished"


def test_a_start_made_of_the_rows_is_not_measured_again(here: Path) -> None:
    run(here, RECIPE, ONE, "grown")
    report = run(here, RECIPE, THREE, "grown").report
    assert report["start"]["perplexity"][2:] == [None, None]
    assert None not in report["matrix"]["perplexity"][1]
    (warning,) = [event["text"] for event in events_of(here / "grown", "warning") if "starting model" in event["text"]]
    assert "not measured on currency, iso_code_3: it is made of the rows of all tasks" in warning


@pytest.mark.parametrize(
    ("values", "setting", "said"),
    [
        ('["currency"]', "seed=3", "stage 1 is `currency`, and was `capital`"),
        (THREE, "training.steps=7", "stage `capital`: training.steps is 7, and was 5"),
        (THREE, "mitigation.ewc.strength=7", "stage `capital`: mitigations.ewc.options.strength is 7.0, and was 0.1"),
        (THREE, "mitigation=[]", "stage `capital`: mitigations is [], and was `ewc`, `replay`"),
        (THREE, "seed=9", "seed is 9, and was 3"),
        (THREE, "data.retain_test.limit=2", "retain.test.options.limit is 2, and was 3"),
    ],
)
def test_a_recipe_whose_beginning_changed_is_refused(
    here: Path, text: str, values: str, setting: str, said: str, finished: Path
) -> None:
    recipe = written(here, text.replace("VALUES", values))
    before = report_of(finished)
    with pytest.raises(UserError, match="holds a run of another recipe") as raised:
        ftk.run(recipe, output=finished, overrides=[setting])
    assert said in str(raised.value)
    assert report_of(finished) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    return ftk.run(written(folder, text.replace("VALUES", ONE)), output=folder / "run").folder


def test_a_shorter_recipe_and_a_damaged_record_are_refused(finished: Path, here: Path, text: str) -> None:
    held = json.loads((finished / "recipe.resolved.json").read_text(encoding="utf-8"))["recipe"]
    longer = load_recipe(written(here, text.replace("VALUES", THREE))).resolved()
    assert difference(held, longer) == ""
    assert difference(longer, held) == "`currency`, `iso_code_3` came after its last stage"
    broken: list[Any] = [None, [], "x", {}, {"stages": 3}, {"stages": [1]}, {"stages": [{}]}]
    for table in broken:
        assert difference(table, longer) == "what was run cannot be read"
