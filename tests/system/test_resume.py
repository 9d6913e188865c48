"""A run that is stopped at any moment loses nothing: the same command goes on and ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system.forge import Death, Forge, random_deaths
from tests.system.small import PIPELINE, events_of, report_of, untimed, weights, written


@dataclass(frozen=True)
class Whole:
    """A run that nothing stopped."""

    recipe: Path
    folder: Path
    weights: dict[str, str]
    report: dict[str, Any]

    def is_equalled_by(self, folder: Path) -> None:
        assert weights(folder) == self.weights
        assert untimed(report_of(folder)) == untimed(self.report)
        for file in self.folder.glob("stages/*/model/*.json"):
            assert (folder / file.relative_to(self.folder)).read_bytes() == file.read_bytes()


@pytest.fixture(scope="module")
def whole(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    recipe = written(folder, PIPELINE)
    code, told = forge.run("run", recipe, "--output", folder / "run")
    assert code == 0, told
    return Whole(recipe, folder / "run", weights(folder / "run"), report_of(folder / "run"))


DEATHS = {
    "while the start is measured": Death("measured", {"after": 0, "task": "capitals"}),
    "in the Fisher pass of stage 1": Death("phase", {"text": "Fisher information of retain"}),
    "right after remembering": Death("checkpoint", {"stage": 1, "step": 0}),
    "in stage 1": Death("step", {"stage": 1, "step": 5}),
    "when a checkpoint is on disk": Death("checkpoint", {"stage": 1, "step": 6}),
    "after the last step of stage 1": Death("checkpoint", {"stage": 1, "step": 9}),
    "while stage 1 is measured": Death("measured", {"after": 1, "task": "retain"}),
    "while stage 1 is saved": Death("phase", {"text": "saving the model of stage capitals"}),
    "between the stages": Death("stage_finished", {"stage": 1}),
    "in the Fisher pass of stage 2": Death("phase", {"text": "Fisher information of capitals"}),
    "in stage 2": Death("step", {"stage": 2, "step": 7}),
    "when all is done but the report": Death("stage_finished", {"stage": 2}),
}


def test_killed_at_every_station_of_one_run(whole: Whole, forge: Forge, tmp_path: Path) -> None:
    """The same command again and again; each time the process dies at the next station."""
    run = ("run", whole.recipe, "--output", tmp_path / "run")
    for moment, death in DEATHS.items():
        code, told = forge.run(*run, death=death)
        assert code == -signal.SIGKILL, (moment, told)
    code, told = forge.run(*run)
    assert code == 0, told
    whole.is_equalled_by(tmp_path / "run")
    assert max(nothing_was_lost(tmp_path / "run")) >= 6, "and not all began at the beginning"


def nothing_was_lost(run: Path) -> list[int]:
    """Steps follow on each other, and where a process died, on a checkpoint no older than the last that was told.

    Returns:
        The step after which each process began.
    """
    saved, last = {1: 0, 2: 0}, (0, 0)
    begun = []
    for event in events_of(run):
        if event["kind"] == "stage_started":
            begun.append(event["first_step"])
            assert event["first_step"] >= saved[event["stage"]]
            last = event["stage"], event["first_step"]
        elif event["kind"] == "step":
            assert (event["stage"], event["step"]) == (last[0], last[1] + 1)
            last = event["stage"], event["step"]
        elif event["kind"] == "checkpoint":
            saved[event["stage"]] = event["step"]
    return begun


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_of_its_writes(whole: Whole, forge: Forge, tmp_path: Path, seed: int) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run")
    died = 0
    for death in random_deaths(seed, 6):
        code, told = forge.run(*run, death=death)
        assert code in (0, -signal.SIGKILL), (death, told)
        died += code != 0
    assert died >= 3
    code, told = forge.run(*run)
    assert code == 0, told
    whole.is_equalled_by(tmp_path / "run")
    nothing_was_lost(tmp_path / "run")
    left = [path.name for path in (tmp_path / "run").rglob(".*")]
    assert not left, "nothing half written stays"
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_names_the_command_that_goes_on(
    whole: Whole, forge: Forge, tmp_path: Path, number: signal.Signals
) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run", "--set", "training.steps=400")
    process = forge.start(*run)
    reached(tmp_path / "run", "step")
    os.kill(process.pid, number)
    assert process.wait() == 130
    told = process.told()
    step = events_of(tmp_path / "run", "step")[-1]["step"]
    assert f"interrupted in stage `capitals` after step {step}; saved" in told
    assert f"go on with: ftk run {whole.recipe} --output {tmp_path / 'run'} --set training.steps=400" in told
    assert "Traceback" not in told
    assert events_of(tmp_path / "run")[-1]["status"] == "interrupted"

    code, told = forge.run(*run, death=Death("step", {"stage": 1, "step": step + 1}))
    assert code == -signal.SIGKILL
    assert f"going on after step {step:,}" in told


def test_a_signal_during_the_fisher_pass_ends_it_at_once(whole: Whole, forge: Forge, tmp_path: Path) -> None:
    run = tmp_path / "run"
    many = "data.retain={ use = 'world_facts', languages = 'en', relations = 'iso_code' }"
    process = forge.start("run", whole.recipe, "--output", run, "--set", many, "--set", "mitigation.ewc.samples=100000")
    reached(run, "phase", "Fisher information of retain")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 130
    assert "interrupted; what was finished is saved" in process.told()
    assert not events_of(run, "stage_started")


def test_a_finished_run_is_shown_again_and_left_alone(whole: Whole, forge: Forge) -> None:
    before = snapshot(whole.folder)
    code, told = forge.run("run", whole.recipe, "--output", whole.folder)
    assert code == 0
    assert "currencies" in told
    assert "perplexity" in told
    assert snapshot(whole.folder) == before


def test_fresh_starts_over(whole: Whole, forge: Forge, tmp_path: Path) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run")
    forge.run(*run, death=Death("step", {"stage": 1, "step": 7}))
    (tmp_path / "run" / "report.html").write_text("of the run before")
    code, told = forge.run(*run, "--fresh", death=Death("step", {"stage": 1, "step": 1}))
    assert code == -signal.SIGKILL
    assert "going on" not in told
    assert len(events_of(tmp_path / "run", "run_started")) == 1
    assert not (tmp_path / "run" / "report.html").exists()


def test_another_recipe_is_refused_where_one_has_trained(whole: Whole, forge: Forge, tmp_path: Path) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run")
    forge.run(*run, death=Death("step", {"stage": 1, "step": 7}))
    before = snapshot(tmp_path / "run")
    code, told = forge.run(*run, "--set", "seed=4")
    assert code == 2
    assert "holds a run of another recipe" in told
    assert "--fresh" in told
    assert snapshot(tmp_path / "run") == before


def test_a_second_process_is_refused_while_the_first_runs(whole: Whole, forge: Forge, tmp_path: Path) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run", "--set", "training.steps=4000")
    first = forge.start(*run)
    reached(tmp_path / "run", "step")
    for arguments in (run, (*run, "--fresh"), (*run, "--set", "seed=4")):
        code, told = forge.run(*arguments)
        assert code == 2
        assert f"another process (id {first.pid}) runs here" in told
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    code, told = forge.run(*run, death=Death("stage_started"))
    assert code == -signal.SIGKILL, f"the lock dies with its process: {told}"


@pytest.mark.parametrize("harm", ["flipped", "cut", "no manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    whole: Whole, forge: Forge, tmp_path: Path, harm: str
) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run")
    forge.run(*run, death=Death("checkpoint", {"stage": 2, "step": 6}))
    newest = tmp_path / "run" / "checkpoints" / "step-000006"
    file = newest / ("manifest.json" if harm == "no manifest" else "optimizer.safetensors")
    content = file.read_bytes()
    file.unlink()
    if harm != "no manifest":
        file.write_bytes(content[:-1] + (b"" if harm == "cut" else bytes([content[-1] ^ 1])))

    if harm == "flipped":
        code, told = forge.run(*run)
        assert code == 0, told
        whole.is_equalled_by(tmp_path / "run")
    else:
        code, told = forge.run(*run, death=Death("step", {"stage": 2, "step": 4}))
        assert code == -signal.SIGKILL, told
    assert f"checkpoint passed over: {file}" in told
    assert "going on after step 3" in told


def test_training_data_that_changed_since_the_checkpoint_are_refused(forge: Forge, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    recipe = written(tmp_path, PIPELINE)
    mine = f"stage.capitals.data.train={{ use = 'files', path = '{rows}' }}"
    run = ("run", recipe, "--output", tmp_path / "run", "--set", mine)
    facts = [{"instruction": f"What is {n} and {n}?", "output": f"{2 * n}."} for n in range(6)]
    rows.write_text("\n".join(map(json.dumps, facts)))
    forge.run(*run, death=Death("checkpoint", {"stage": 1, "step": 3}))
    good = rows.read_text()
    rows.write_text(good.replace("10.", "11."))
    code, told = forge.run(*run)
    assert code == 2
    assert "stage `capitals`: the training data, or what its objective reads beside them, changed" in told
    assert "since the checkpoint at step 3" in told
    rows.write_text(good)
    code, told = forge.run(*run, death=Death("step", {"stage": 1, "step": 4}))
    assert code == -signal.SIGKILL, f"bringing the data back mends it: {told}"


def test_a_damaged_finished_stage_is_named(whole: Whole, forge: Forge, tmp_path: Path) -> None:
    run = ("run", whole.recipe, "--output", tmp_path / "run")
    forge.run(*run, death=Death("stage_finished", {"stage": 1}))
    stage = tmp_path / "run" / "stages" / "1-capitals"
    file = stage / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, told = forge.run(*run)
    assert code == 1
    assert f"{file}: is damaged" in told
    assert f"delete {stage} to run it again" in told


def reached(run: Path, kind: str, text: str | None = None, count: int = 1) -> None:
    """Wait until the run has told of this so many times."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (run / "events.jsonl").is_file():
            lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            events = [json.loads(line) for line in lines if line.endswith("\n")]
            if sum(event["kind"] == kind and text in (None, event.get("text")) for event in events) >= count:
                return
        time.sleep(0.01)
    raise TimeoutError(f"no {kind} in {run}")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content, but for the lock, which holds the process id."""
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
