"""The example plugin as its author ships it: installed by pip, listed, run, tested, and missed when gone."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

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


class Environment:
    """An environment with all that this one has, in which packages come and go without a trace here."""

    def __init__(self, folder: Path) -> None:
        has_pip = importlib.util.find_spec("pip") is not None
        venv.create(folder / "venv", with_pip=not has_pip, symlinks=True)
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        site = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        # `addsitedir` also reads the .pth files there, through which an editable install of ftk is found.
        parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [f"import site; site.addsitedir({path!r})" for path in sorted(parents)]
        Path(site, "parent.pth").write_text("\n".join(lines) + "\n")

    def module(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``python -m ...`` in the environment, from its folder."""
        command = [self.python, "-m", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)

    def ftk(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.module("ftk", *arguments)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which pip has put the example, built from its sources."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    made = Environment(folder)
    # Without isolation the build needs no network: hatchling is installed beside ftk for the tests.
    done = made.module("pip", "install", "--no-deps", "--no-build-isolation", "--no-input", folder / "source")
    assert done.returncode == 0, done.stderr
    return made


def test_it_is_listed(environment: Environment) -> None:
    done = environment.ftk("list-plugins", "mitigation", "--json")
    assert done.returncode == 0, done.stderr
    (listed,) = [variant for variant in json.loads(done.stdout)["variants"] if variant["name"] == "agem"]
    assert (listed["distribution"], listed["version"], listed["status"]) == ("ftk-agem", "0.1.0", "ok")


def test_its_recipe_is_right(environment: Environment) -> None:
    done = environment.ftk("check", EXAMPLE / "recipe.toml")
    assert done.returncode == 0, done.stderr
    assert "agem" in done.stdout


def test_a_run_with_it_acts_and_reports(environment: Environment) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = environment.ftk("run", EXAMPLE / "recipe.toml", "--output", environment.folder / "run", *settings)
    assert done.returncode == 0, done.stderr
    report = json.loads((environment.folder / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "completed"
    told = report["stages"][1]["mitigations"]["agem"]
    assert told["rows"] == {"capitals": 24}
    assert 0 <= told["projected"] <= 1


def test_its_own_tests_pass(environment: Environment) -> None:
    tests = environment.folder / "source" / "tests"
    done = environment.module("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", tests)
    assert done.returncode == 0, done.stdout


def test_without_it_the_recipe_is_refused(environment: Environment) -> None:
    """Last in this file: it takes the plugin out."""
    done = environment.module("pip", "uninstall", "--yes", "ftk-agem")
    assert done.returncode == 0, done.stderr
    done = environment.ftk("check", EXAMPLE / "recipe.toml")
    assert done.returncode == 2
    assert "unknown mitigation `agem`" in done.stderr
    assert "replay" in done.stderr
    assert "Traceback" not in done.stderr
