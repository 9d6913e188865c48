"""Who may use a run's folder, and which of its checkpoints count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from ftk.errors import UserError
from ftk.events import Events
from ftk.recipe.specs import Recipe
from ftk.running.folder import InUse, RunFolder


@dataclass(frozen=True)
class FakeRecipe:
    """What a folder asks of a recipe."""

    sha256: str
    text: str = "name = 'x'\n"

    def resolved(self) -> dict[str, Any]:
        return {"name": "x"}


def opened(path: Path, recipe: str = "a", **options: Any) -> RunFolder:
    return RunFolder(path, cast(Recipe, FakeRecipe(recipe, f"# {recipe}\n")), **options)


def save(
    folder: RunFolder, stage: int, step: int, states: dict[str, Any], keep: int = 2, best: int | None = None
) -> Path:
    """Save a checkpoint and wait until it is on disk."""
    told: list[Path] = []
    folder.checkpoints.save(stage, step, states, keep, told.append, best)
    folder.checkpoints.settle()
    (path,) = told
    return path


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


CLAIMED = {"run.lock", "recipe.toml", "recipe.resolved.json"}


def test_a_folder_in_which_nothing_was_trained_is_taken_over(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    folder.finish_stage(0, "start", {"scores": {"start": 1}})
    (folder.path / "events.jsonl").write_text("{}\n")
    folder.close()

    taken = opened(tmp_path / "run", "b")

    assert names(taken.path) == CLAIMED
    assert (taken.path / "recipe.toml").read_text() == "# b\n"
    taken.close()
    opened(tmp_path / "run", "b").close()


@pytest.mark.parametrize("trained", ["checkpoint", "stage"])
def test_a_folder_in_which_something_was_trained_is_kept(tmp_path: Path, trained: str) -> None:
    folder = opened(tmp_path / "run")
    if trained == "checkpoint":
        save(folder, 1, 5, {"x": {"value": 1}})
    else:
        folder.finish_stage(1, "first", {"x": {"value": 1}})
    folder.close()
    before = set((tmp_path / "run").rglob("*"))

    with pytest.raises(UserError, match="holds a run of another recipe") as refused:
        opened(tmp_path / "run", "b")

    assert "--fresh" in refused.value.hint
    assert set((tmp_path / "run").rglob("*")) == before
    opened(tmp_path / "run", "b", fresh=True).close()
    assert names(tmp_path / "run") == CLAIMED


def test_what_is_no_runs_folder_is_left_alone_even_by_fresh(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(UserError, match="holds files, but no run of ftk"):
            opened(tmp_path, fresh=fresh)
    assert names(tmp_path) == {"thesis.tex"}


@pytest.mark.parametrize("left", [(), ("run.lock",), ("run.lock", ".recipe.resolved.json.partial")])
def test_a_folder_that_was_only_begun_is_taken(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (tmp_path / name).touch()
    opened(tmp_path).close()
    assert names(tmp_path) >= CLAIMED


def test_a_clearing_that_was_interrupted_can_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened(tmp_path / "run")
    folder.finish_stage(1, "first", {"x": {"value": 1}})
    folder.close()

    def stopped(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ftk.running.folder.shutil.rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "run", fresh=True)
    opened(tmp_path / "run", fresh=True).close()
    assert names(tmp_path / "run") == CLAIMED


def test_the_checkpoints_of_a_finished_stage_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """They are left when a process dies between finishing the stage and deleting them."""
    folder = opened(tmp_path / "run")
    for step in (30, 40):
        save(folder, 1, step, {"x": {"value": step}})

    assert folder.checkpoints.latest(2, Events([])) is None
    for step in (0, 5):
        save(folder, 2, step, {"x": {"value": step}})

    assert folder.checkpoints.latest(2, Events([])) == (5, {"x": {"value": 5}})
    assert names(folder.path / "checkpoints") == {"step-000000", "step-000005"}
    folder.close()


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    for step in (999_999, 1_000_000):
        save(folder, 1, step, {"x": {"value": step}})
    found = folder.checkpoints.latest(1, Events([]))
    assert found is not None
    assert found[0] == 1_000_000
    folder.close()


def test_a_checkpoint_that_was_being_replaced_when_the_run_was_killed_is_taken_back(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    path = save(folder, 1, 5, {"x": {"value": 1}})
    old = path.with_name(".step-000005.old")
    path.rename(old)
    folder.close()
    folder = opened(tmp_path / "run", "a")
    assert folder.checkpoints.latest(1, Events([])) == (5, {"x": {"value": 1}})
    old.mkdir()
    folder.close()
    folder = opened(tmp_path / "run", "a")
    assert folder.checkpoints.read(5) == {"x": {"value": 1}}, "one that is there is left alone"
    folder.close()


def test_a_process_that_does_not_hold_the_folder_deletes_nothing(tmp_path: Path) -> None:
    holder, peer = opened(tmp_path / "run"), opened(tmp_path / "run", held=False)
    path = save(holder, 1, 5, {"x": {"value": 1}})
    (path / "x.json").write_text("{}")

    assert peer.checkpoints.latest(1, Events([])) is None
    assert path.is_dir()
    assert holder.checkpoints.latest(1, Events([])) is None
    assert not path.exists()
    holder.close()


def test_a_second_process_is_told_that_the_folder_is_in_use(tmp_path: Path) -> None:
    first = opened(tmp_path / "run")
    with pytest.raises(InUse, match="runs here"):
        opened(tmp_path / "run")
    first.close()
    opened(tmp_path / "run").close()
