"""The folder of a run: what stands where, who may write to it, and how far the run has come."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ftk.disk.bundles import link_or_copy, read_bundle
from ftk.disk.checkpoints import Checkpoints
from ftk.disk.manifest import (
    MANIFEST,
    Damaged,
    read_manifest,
    read_table,
    replace_directory,
    seal,
    verify,
    verify_file,
)
from ftk.errors import RunFailed, UserError
from ftk.files import write_text
from ftk.parts import State
from ftk.recipe.growing import as_before, difference
from ftk.recipe.specs import Recipe
from ftk.report.scores import Scores

CLAIM = "recipe.resolved.json"
"""The file that makes a folder a run's: the first that is written and the last that is deleted."""


class InUse(UserError):
    """Another process runs in the folder."""


class RunFolder:
    """One run's folder, held by one process at a time.

    Args:
        path: the folder; made if it is not there.
        recipe: what the run runs; a folder in which another recipe has trained is refused, unless this one is that
            with more stages after it; one in which it came to nothing is taken over.
        fresh: delete what an earlier run left here.
        held: lock the folder and claim it for the recipe; without it the folder is only read.

    Attributes:
        grown: whether its recipe has gained classes since it began, so that it is no run of that recipe alone.

    Raises:
        UserError: another process runs here, the folder holds another recipe's run, or it is something else.
    """

    def __init__(self, path: Path, recipe: Recipe, fresh: bool = False, held: bool = True) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints", held)
        self.grown = False
        self._lock: IO[str] | None = None
        if not held:
            return
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: is a file, not a run's folder", "choose another folder with --output")
        held_files = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if CLAIM not in held_files and held_files - {"run.lock", f".{CLAIM}.partial"}:
            raise UserError(f"{path}: holds files, but no run of ftk", "choose an empty or a new folder with --output")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            if fresh:
                self._clear()
            self.checkpoints.take_back()
            self._claim(recipe)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes in, when what is being written is on disk."""
        self.checkpoints.close()
        if self._lock is not None:
            self._lock.close()

    def completed(self, number: int, name: str) -> dict[str, Any] | None:
        """The report of a run whose last stage is this one, if the run completed; its ``model/`` is checked.

        None also where something that a run makes anew from its stages, the report or ``model/``, is not there.

        Raises:
            Damaged: the report cannot be read.
            RunFailed: a file of ``model/`` is damaged; names it and the mend.
        """
        path, stage, model = self.path / "report.json", self.stage_path(number, name), self.path / "model"
        if not path.exists():
            return None
        report = read_table(path)
        try:
            Scores.from_json(report)
            completed = report["status"] == "completed" and isinstance(report["stages"], list)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"{path}: cannot be read (it is not a run's report)") from error
        if not completed or not stage.is_dir() or not model.is_dir():
            return None
        self._check_model(stage)
        return report

    def _check_model(self, stage: Path) -> None:
        """Hold ``model/`` against the manifest of the stage that made it; its card may be edited."""
        try:
            for name, told in read_manifest(stage)["files"].items():
                if name.startswith("model/") and name != "model/README.md":
                    verify_file(self.path / name, told)
        except Damaged as error:
            raise RunFailed(f"{error}\n  {self._mend_of(stage)}") from error

    def _mend_of(self, stage: Path) -> str:
        try:
            verify(stage)
        except Damaged:
            return f"the files of {stage} are damaged too; delete that folder to run the stage again"
        return f"delete {self.path / 'model'}, and the same command makes it anew from {stage}"

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file into the folder, whole or not at all."""
        write_text(self.path / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    # Stages: stages/0-start holds the starting model's scores; stages/<n>-<name> what stage n left.

    def stage_path(self, number: int, name: str) -> Path:
        return self.path / "stages" / f"{number}-{name}"

    def model_path(self, number: int, name: str) -> Path:
        """Where a finished stage's model is: ``save_pretrained``'s files, loadable without ftk."""
        return self.stage_path(number, name) / "model"

    def stage_aside(self, number: int, name: str) -> Path:
        """An empty folder in which to put together what a stage leaves."""
        aside = self.aside_path(number, name)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        return aside

    def aside_path(self, number: int, name: str) -> Path:
        """Where :meth:`stage_aside` makes its folder."""
        return self.path / "stages" / f".{number}-{name}.partial"

    def finish_stage(self, number: int, name: str, states: dict[str, State], **facts: Any) -> None:
        """Turn the folder of :meth:`stage_aside` into the finished stage, with the states that go on from it."""
        aside = self.aside_path(number, name)
        aside.mkdir(parents=True, exist_ok=True)
        self.checkpoints.bundler.take(aside / "state", states, copy=False).write()
        if self._lock is not None:
            seal(aside, **facts)
            replace_directory(aside, self.stage_path(number, name))
        self.checkpoints.clear()

    def finished_stage(self, number: int, name: str) -> tuple[dict[str, State], dict[str, Any]] | None:
        """The states and facts that a finished stage left; None if it has not finished.

        Raises:
            RunFailed: it has finished, but a file of it is damaged.
        """
        path = self.stage_path(number, name)
        if not path.is_dir():
            return None
        try:
            facts = verify(path, self.checkpoints.mesh)
            states, _ = read_bundle(path / "state", self.checkpoints.mesh)
            if "scores" not in states or (number and not isinstance(facts.get("facts"), dict)):
                raise Damaged(f"{path / MANIFEST}: does not tell what the stage left")
        except Damaged as error:
            raise RunFailed(
                f"{error}\n  a finished stage cannot be used again like this; delete {path} to run it again"
            ) from error
        return states, facts

    def finished_stages(self, names: Iterable[str]) -> Iterator[tuple[dict[str, State], dict[str, Any]]]:
        """What :meth:`finished_stage` gives of the start and of the stages of these names, up to one not finished."""
        for number, name in enumerate(["start", *names]):
            if (found := self.finished_stage(number, name)) is None:
                return
            yield found

    def publish_model(self, number: int, name: str) -> None:
        """Show the last stage's model as ``model/``, without a second copy of the weights where links work."""
        aside = self.path / ".model.partial"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(self.model_path(number, name), aside, copy_function=link_or_copy)
        replace_directory(aside, self.path / "model")

    def _take_lock(self) -> IO[str]:
        lock = (self.path / "run.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise InUse(
                f"{self.path}: another process (id {owner}) runs here",
                "wait for it, or choose another folder with --output",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _clear(self) -> None:
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == CLAIM):
            if entry.name == "run.lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _claim(self, recipe: Recipe) -> None:
        claim = self.path / CLAIM
        try:
            there = read_table(claim) if claim.is_file() else {"sha256": recipe.sha256}
            held = there.get("sha256")
        except Damaged as error:
            if self._has_trained():
                raise UserError(
                    f"{error}, so nothing tells which recipe was run here",
                    "bring the file back, choose another folder with --output, or start over here with --fresh",
                ) from error
            there, held = {}, None
        if held != recipe.sha256:
            if not self._has_trained():
                self._clear()  # its recipe was wrong, and has been mended since
            elif found := difference(there.get("recipe"), asked := as_before(there.get("recipe"), recipe)):
                raise UserError(
                    f"{self.path}: holds a run of another recipe, or of this one before it changed: {found}",
                    "choose another folder with --output, or start over here with --fresh",
                )
            else:  # it goes on with stages that have been added
                self.grown = asked != recipe.resolved()
                if self.grown and self.checkpoints.there():
                    raise UserError(
                        f"{self.path}: a stage is under way, whose head has the classes that the recipe had until now",
                        "let it end with the recipe as it was, and add classes then",
                    )
                write_text(self.path / "recipe.toml", recipe.text)
        self.grown |= there.get("grown") is True
        if held != recipe.sha256 or not claim.is_file():
            self.write_json(CLAIM, {"sha256": recipe.sha256, "grown": self.grown, "recipe": recipe.resolved()})
        if not (self.path / "recipe.toml").is_file():
            write_text(self.path / "recipe.toml", recipe.text)

    def _has_trained(self) -> bool:
        """Whether anything is here that took training to make: a checkpoint, or a stage that finished."""
        return bool(self.checkpoints.there()) or any((self.path / "stages").glob("[1-9]*"))
