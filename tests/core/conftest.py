"""Plugins made up for tests of the core: real distributions in a folder of their own on ``sys.path``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Registry
from tests.core.lab import LAB_FILES
from tests.core.read import Read

Add = Callable[..., None]


@pytest.fixture
def add_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """``add_plugin("ftk-mega", {"ftk_mega.py": "..."}, {"mega": "ftk_mega"})`` installs a distribution."""
    shelf = tmp_path / "site"
    shelf.mkdir()
    before = set(sys.modules)

    def add(distribution: str, files: Mapping[str, str], entry_points: Mapping[str, str], version: str = "1.0") -> None:
        install(shelf, distribution, files, entry_points, version)
        monkeypatch.syspath_prepend(shelf)

    yield add
    _forget(shelf, before)


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the distribution ``ftk-lab``: variants of every kind that import nothing heavy."""
    folder = tmp_path_factory.mktemp("lab")
    install(folder, "ftk-lab", LAB_FILES, {"lab": "ftk_lab"}, "2.0")
    return folder


@pytest.fixture
def lab(lab_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Everything that is installed, and ``ftk-lab``."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(lab_folder)
    yield load_registry()
    _forget(lab_folder, before)


@pytest.fixture
def read(tmp_path: Path, lab: Registry) -> Read:
    """``read(text, "key=value", without=("name",))`` gives a recipe."""
    return Read(tmp_path, lab)


@pytest.fixture(scope="module")
def planned_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ten texts of 4 to 40 bytes."""
    path = tmp_path_factory.mktemp("planned") / "rows.jsonl"
    texts = ["".join(chr(97 + (7 * n + k * k) % 26) for k in range(4 * n)) for n in range(1, 11)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def install(
    folder: Path, distribution: str, files: Mapping[str, str], entry_points: Mapping[str, str], version: str
) -> None:
    """Write a distribution as pip would leave it: its modules, and metadata with entry points."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = [f"{name} = {module}" for name, module in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ftk]", *lines, ""]))


def _forget(folder: Path, before: set[str]) -> None:
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
