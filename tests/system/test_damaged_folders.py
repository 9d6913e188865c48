"""A run's folder whose files were harmed: the file is named with the mend, and what can be made anew is made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ftk.cli import cli
from tests.system.small import FACTS, HEAD, events_of, report_of, weights, written

TEXT = f"""{HEAD.replace("steps = 9", "steps = 2")}
[adaptation]
use = "lora"
rank = 2
[[evaluator]]
use = "perplexity"
[data]
overlap = "allow"
train = {{ {FACTS}, relations = "capital", limit = 6 }}
test = {{ {FACTS}, relations = "capital", limit = 3 }}
"""

SHAPES = {"emptied": "", "cut": '{"status": "comp', "a list": "[]", "another object": "{}", "null": "null"}
"""What may stand in a JSON file in place of what was written."""

Again = Callable[..., Result]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run beside its recipe."""
    folder = tmp_path_factory.mktemp("damaged")
    result = CliRunner().invoke(cli, ["run", str(written(folder, TEXT)), "--output", str(folder / "run")])
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, without the links between ``model/`` and its stage."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def again(finished: Path, run: Path) -> Again:
    """The command that made the run."""
    return lambda *more: CliRunner().invoke(
        cli, ["run", str(finished.parent / "recipe.toml"), "--output", str(run), *more]
    )


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES.keys())
def test_a_claim_that_cannot_be_read_is_named(run: Path, again: Again, content: str) -> None:
    (run / "recipe.resolved.json").write_text(content)
    result = again()
    assert result.exit_code == 2, result.output
    said = str(run / "recipe.resolved.json") if content not in ("{}",) else "holds a run of another recipe"
    assert said in result.stderr
    assert "--fresh" in result.stderr
    assert "mistake of ftk" not in result.output
    assert weights(run), "nothing was deleted"


def test_a_claim_that_cannot_be_read_is_no_loss_where_nothing_has_trained(run: Path, again: Again) -> None:
    (run / "recipe.resolved.json").write_text("")
    shutil.rmtree(run / "stages")
    assert again().exit_code == 0
    assert json.loads((run / "recipe.resolved.json").read_text())["recipe"]["name"] == "small"


@pytest.mark.parametrize("content", [*SHAPES.values(), '{"status": "completed", "stages": []}'])
def test_a_report_that_cannot_be_read_is_made_anew(run: Path, again: Again, content: str) -> None:
    before, trained = report_of(run), len(events_of(run, "step"))
    (run / "report.json").write_text(content)
    result = again()
    assert result.exit_code == 0, result.output
    assert f"warning: {run / 'report.json'}: cannot be read" in result.output
    assert report_of(run) == before
    assert len(events_of(run, "step")) == trained, "what is finished is not trained again"


@pytest.mark.parametrize(
    ("file", "harm"),
    [("model.safetensors", "flipped"), ("adapter/adapter_model.safetensors", "cut"), ("config.json", "deleted")],
)
def test_a_damaged_file_of_a_finished_model_is_named(run: Path, again: Again, file: str, harm: str) -> None:
    path = run / "model" / file
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content[:-5] if harm == "cut" else content)
    if harm == "deleted":
        path.unlink()
    result = again()
    assert result.exit_code == 1
    assert f"{path}: is {'missing' if harm == 'deleted' else 'damaged'}" in result.stderr
    assert f"delete {run / 'model'}, and the same command makes it anew" in result.stderr

    shutil.rmtree(run / "model")
    result = again()
    assert result.exit_code == 0, result.output
    assert (run / "model" / file).read_bytes() == (run / "stages" / "1-small" / "model" / file).read_bytes()


def test_a_file_damaged_through_its_link_sends_to_the_stage(finished: Path, run: Path, again: Again) -> None:
    for folder in (run, run / "stages" / "1-small"):
        (folder / "model" / "model.safetensors").write_bytes(b"")
    result = again()
    assert result.exit_code == 1
    assert f"{run / 'model' / 'model.safetensors'}: is damaged" in result.stderr
    assert "delete that folder to run the stage again" in result.stderr
    shutil.rmtree(run / "stages" / "1-small")
    assert again().exit_code == 0
    assert weights(run) == weights(finished)


def test_an_edited_model_card_is_no_damage(run: Path, again: Again) -> None:
    (run / "model" / "README.md").write_text("My model.")
    assert again().exit_code == 0
    assert (run / "model" / "README.md").read_text() == "My model."


@pytest.mark.parametrize("content", ["", "[]", '{"files": []}', '{"files": {}}', '{"files": {"a": 1}}'])
@pytest.mark.parametrize("place", ["stages/1-small", "stages/1-small/state"])
def test_a_manifest_that_cannot_be_read_is_named(run: Path, again: Again, content: str, place: str) -> None:
    (run / "report.json").unlink()
    (run / place / "manifest.json").write_text(content)
    result = again()
    assert result.exit_code == 1
    assert str(run / place / "manifest.json") in result.stderr
    assert f"delete {run / 'stages' / '1-small'} to run it again" in result.stderr
    assert "mistake of ftk" not in result.output


def test_an_event_cut_short_by_a_kill_does_not_spoil_the_next(run: Path, again: Again) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write('{"time": 1, "kind": "st')
    (run / "report.json").unlink()
    assert again().exit_code == 0
    lines = (run / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["kind"] == "run_finished"
    assert sum(not line.endswith("}") for line in lines) == 1
