"""Folders of ablations and sweeps: whose they are, also where several processes come at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ftk import files
from ftk.comparing.claiming import claim
from ftk.comparing.runs import SWEEP
from ftk.errors import UserError
from ftk.files import read_json
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    path = Path(__file__).parents[2] / "recipes" / "ewc_lora.toml"
    return load_recipe(path, registry=load_registry(third_party=False))


def test_processes_that_claim_a_folder_at_once_do_not_meet(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = files.sync

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(files, "sync", sync)
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            claim(tmp_path / "sweep", SWEEP, "sweep", recipe)
        sync(path)

    monkeypatch.setattr(files, "sync", meanwhile)
    claim(tmp_path / "sweep", SWEEP, "sweep", recipe)
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == [SWEEP]
    assert read_json(tmp_path / "sweep" / SWEEP)["name"] == "ewc_lora"


def test_what_a_killed_process_left_of_its_claim_is_no_other_s(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / f".{SWEEP}.7.partial").touch()
    claim(tmp_path, SWEEP, "sweep", recipe)
    assert (tmp_path / SWEEP).is_file()
    (tmp_path / SWEEP).unlink()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="holds files, but no sweep of ftk"):
        claim(tmp_path, SWEEP, "sweep", recipe)
