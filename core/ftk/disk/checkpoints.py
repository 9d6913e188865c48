"""The checkpoints of the running stage: written while training goes on, one at a time, and read back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from torch.distributed.device_mesh import DeviceMesh

from ftk.disk.bundles import Bundle, Bundler, read_bundle
from ftk.disk.manifest import MANIFEST, Damaged, read_manifest
from ftk.errors import RunFailed
from ftk.events import Events
from ftk.parts import State


class Checkpoints:
    """``checkpoints/step-000200`` and its like.

    Training waits for the copy of what has changed since the last checkpoint, and for a write that is still
    under way when the next is due; never for the disk. So at most one copy is in memory.

    One that several processes write together is written before the training goes on, in which they meet too.

    Args:
        path: the folder that holds them; made with the first.
        held: whether this process may delete what is damaged or of no use; one that does not only reads, and writes
            its rows of what is divided.

    Attributes:
        mesh: the processes among which the model is divided; they read together.
    """

    def __init__(self, path: Path, held: bool) -> None:
        self.path = path
        self.bundler = Bundler()
        self.mesh: DeviceMesh | None = None
        self._held = held
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._written: tuple[Future[None], Path, Callable[[Path], None]] | None = None

    def step_path(self, step: int) -> Path:
        return self.path / f"step-{step:06d}"

    def save(
        self,
        stage: int,
        step: int,
        states: Mapping[str, State],
        keep: int,
        told: Callable[[Path], None],
        best: int | None = None,
    ) -> None:
        """Copy the states and let them be written; then delete the oldest over ``keep`` that no other needs.

        Args:
            stage: the running stage.
            step: its steps so far.
            states: of everything that the rest of the stage depends on.
            keep: how many checkpoints to keep.
            told: called from :meth:`check` or :meth:`settle` when the checkpoint is on disk, with its folder.
            best: the step whose checkpoint holds the weights that the stage would leave, if not the last ones.

        Raises:
            RunFailed: the checkpoint before could not be written.
        """
        self.settle()
        self.path.mkdir(exist_ok=True)
        bundle = self.bundler.take(self.step_path(step), states, copy=True, stage=stage, step=step, best=best)
        if bundle.together:  # exchanges between processes belong to the thread that makes all the others
            self._written = _done(self._write, bundle, keep), bundle.directory, told
            self.settle()
        else:
            self._written = self._writer.submit(self._write, bundle, keep), bundle.directory, told

    def check(self) -> None:
        """Tell of the checkpoint that has been written, if it has by now; waits for nothing.

        Raises:
            RunFailed: it could not be written.
        """
        if self._written is not None and self._written[0].done():
            self.settle()

    def settle(self) -> None:
        """Wait until what was saved is on disk, and tell of it.

        Raises:
            RunFailed: it could not be written.
        """
        if self._written is None:
            return
        (future, path, told), self._written = self._written, None
        try:
            future.result()
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunFailed(
                f"{path}: the checkpoint cannot be written: {reason}\n"
                "  make room or mend the disk; the same command then goes on from the checkpoint before"
            ) from error
        told(path)

    def close(self) -> None:
        """Wait for a write that is under way; whoever closes has something else to tell than how it went."""
        self._writer.shutdown()

    def clear(self) -> None:
        """Delete them all: the stage has finished."""
        self.settle()
        self.bundler = Bundler()
        if self._held:
            shutil.rmtree(self.path, ignore_errors=True)

    def read(self, step: int) -> dict[str, State]:
        """The states of one of them.

        Raises:
            RunFailed: it is damaged.
        """
        try:
            return read_bundle(self.step_path(step), self.mesh)[0]
        except Damaged as error:
            raise RunFailed(
                f"{error}\n  it holds the stage's best weights; delete {self.path} to train it again"
            ) from error

    def latest(self, stage: int, events: Events) -> tuple[int, dict[str, State]] | None:
        """The newest sound checkpoint of this stage: its step and states.

        Damaged ones are named; they, and those of a stage that finished, are deleted on the way.
        """
        for path in reversed(self.there()):
            try:
                states, manifest = read_bundle(path, self.mesh)
                if not isinstance(manifest.get("step"), int):
                    raise Damaged(f"{path / MANIFEST}: does not tell the step")
                if manifest.get("stage") == stage:
                    return manifest["step"], states
            except Damaged as error:
                events("warning", text=f"checkpoint passed over: {error}")
            if self._held:
                shutil.rmtree(path)
        return None

    def take_back(self) -> None:
        """Give a checkpoint its name again that was making room for a newer one of its step when the run was killed."""
        for old in self.path.glob(".step-*.old"):
            path = self.path / old.name.removeprefix(".").removesuffix(".old")
            if not path.exists():
                old.rename(path)

    def there(self) -> list[Path]:
        """The folders of those that are on disk, the oldest first."""
        found = self.path.glob("step-*")
        return sorted(found, key=lambda path: (len(path.name), path.name))  # by number, also past six digits

    def _write(self, bundle: Bundle, keep: int) -> None:
        bundle.write()
        if not self._held:
            return
        there = self.there()
        needed = {self._best_of(newest) for newest in there[-keep:]}
        for old in there[:-keep]:
            if old not in needed:
                shutil.rmtree(old)

    def _best_of(self, checkpoint: Path) -> Path | None:
        """Where the best weights are that a checkpoint counts on; a damaged one will be passed over, and they too."""
        with suppress(Damaged):
            best = read_manifest(checkpoint).get("best")
            return self.step_path(best) if isinstance(best, int) else None
        return None


def _done(work: Callable[[Bundle, int], None], bundle: Bundle, keep: int) -> Future[None]:
    """The future of work that is done here and now."""
    future: Future[None] = Future()
    try:
        work(bundle, keep)
        future.set_result(None)
    except (OSError, SafetensorError) as error:
        future.set_exception(error)
    return future
