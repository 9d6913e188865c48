"""The second example package as its author ships it: a plain module and rows of pixels, installed by pip."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.system.environments import Environment

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-digits"
SMALL = ("model.hidden=32", "training.epochs=1", "training.checkpoint_every=5", "training.log_every=1")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which pip has put the example, built from its sources."""
    folder = tmp_path_factory.mktemp("digits")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    made = Environment(folder)
    made.install(folder / "source")
    return made


def test_its_own_tests_pass(environment: Environment) -> None:
    tests = environment.folder / "source" / "tests"
    done = environment.module("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", tests)
    assert done.returncode == 0, done.stdout


def test_a_run_that_was_killed_is_taken_up_again(environment: Environment) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    run, whole = environment.folder / "run", environment.folder / "whole"
    command = [environment.python, "-m", "ftk", "run", EXAMPLE / "recipe.toml", *settings, "--output"]
    process = subprocess.Popen(
        [*command, run], cwd=environment.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ready = run / "stages" / "2-second"
    while not ready.is_dir() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "model").exists(), "the run had ended before it could be killed"
    for folder in (run, whole):
        done = subprocess.run([*command, folder], cwd=environment.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in (run, whole)]
    assert reports[0]["matrix"] == reports[1]["matrix"]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, whole)]
    assert weights[0] == weights[1]
