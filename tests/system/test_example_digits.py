"""The second example package as its author ships it: a plain module and rows of pixels, installed by pip."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.system.environments import Environment

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-digits"


def test_installed_by_pip_its_own_tests_pass(tmp_path: Path) -> None:
    """Among them one that kills a run and takes it up again."""
    shutil.copytree(EXAMPLE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    environment = Environment(tmp_path)
    environment.install(tmp_path / "source")
    tests = tmp_path / "source" / "tests"
    done = environment.module("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", tests)
    assert done.returncode == 0, done.stdout
