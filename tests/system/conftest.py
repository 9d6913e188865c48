"""What the system tests share: one forge for all of them, a folder to run in, plugins made up for a test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.core.conftest import install
from tests.system.forge import Forge


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Starts real ``ftk`` processes, each new, that do not wait for their imports."""
    made = Forge(tmp_path_factory.mktemp("forge"))
    yield made
    made.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, on the CPU."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return folder


@pytest.fixture
def add_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """``add_plugin("ftk-watch", source)`` installs a distribution of one module, for this test."""
    site = tmp_path / "site"
    modules: list[str] = []

    def add(distribution: str, source: str) -> None:
        module = distribution.replace("-", "_")
        install(site, distribution, {f"{module}.py": source}, {"made_up": module}, "1.0")
        monkeypatch.syspath_prepend(site)
        modules.append(module)

    yield add
    for module in modules:
        sys.modules.pop(module, None)
