"""The example plugin as its author ships it: installed by pip, listed, run, tested, and missed when gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.system.environments import Environment

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-plugin"
SMALL = (
    "model.hidden_size=32",
    "model.layers=1",
    "training={steps=3, batch_size=8, precision='fp32'}",
    "stage.capitals.data.train.limit=4",
    "stage.capitals.data.test.limit=2",
    "stage.currencies.data.train.limit=4",
    "stage.currencies.data.test.limit=2",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which pip has put the example, built from its sources."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    made = Environment(folder)
    made.install(folder / "source")
    return made


def test_it_is_listed(environment: Environment) -> None:
    done = environment.ftk("list-plugins", "mitigation", "--json")
    assert done.returncode == 0, done.stderr
    (listed,) = [variant for variant in json.loads(done.stdout)["variants"] if variant["name"] == "mega"]
    assert (listed["distribution"], listed["version"], listed["status"]) == ("ftk-mega", "0.1.0", "ok")


def test_its_recipe_is_right(environment: Environment) -> None:
    done = environment.ftk("check", EXAMPLE / "recipe.toml")
    assert done.returncode == 0, done.stderr
    assert "mega" in done.stdout


def test_a_run_with_it_acts_and_reports(environment: Environment) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = environment.ftk("run", EXAMPLE / "recipe.toml", "--output", environment.folder / "run", *settings)
    assert done.returncode == 0, done.stderr
    report = json.loads((environment.folder / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "completed"
    told = report["stages"][1]["mitigations"]["mega"]
    assert told["rows"] == {"capitals": 24}
    assert told["weight"] > 0


def test_its_own_tests_pass(environment: Environment) -> None:
    tests = environment.folder / "source" / "tests"
    done = environment.module("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", tests)
    assert done.returncode == 0, done.stdout


def test_without_it_the_recipe_is_refused(environment: Environment) -> None:
    """Last in this file: it takes the plugin out."""
    done = environment.module("pip", "uninstall", "--yes", "ftk-mega")
    assert done.returncode == 0, done.stderr
    done = environment.ftk("check", EXAMPLE / "recipe.toml")
    assert done.returncode == 2
    assert "unknown mitigation `mega`" in done.stderr
    assert "replay" in done.stderr
    assert "Traceback" not in done.stderr
