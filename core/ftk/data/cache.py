"""What was computed once and is used again: a folder for each, named by what made it, whole or not there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ftk.errors import UserError
from ftk.files import sync

FORMAT = 3
"""Part of every key: it grows when what is stored is laid out or computed in another way."""

NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
"""The errors of a folder that cannot be written."""


def cache_folder() -> Path:
    """``$FTK_CACHE``, else ``ftk`` in the user's folder for caches."""
    if named := os.environ.get("FTK_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ftk"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftk"


def key_of(*facts: Any) -> str:
    """The name of what depends on ``facts`` (JSON values) alone: 32 hexadecimal digits."""
    canonical = json.dumps([FORMAT, *facts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Cache:
    """A folder of entries; an entry is a folder of files that is there whole or not at all.

    Several processes may share it. The one that takes an entry's lock first computes it, the others wait and
    find it. What a killed process leaves is not taken for an entry, and is deleted by the next that computes one.

    Args:
        folder: where the entries are.
        pause: called while another process computes what is asked for; may raise to give up.
    """

    def __init__(self, folder: Path, pause: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._pause = pause

    def find(self, key: str) -> Path | None:
        """The folder of an entry, if there is one."""
        path = self.folder / key
        return path if path.is_dir() else None

    def entry(self, key: str, compute: Callable[[Path], None]) -> Path:
        """The folder of an entry; ``compute`` fills an empty folder if there is none.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self.folder / key
        if path.is_dir():
            return path
        with self.locked(key):
            if not path.is_dir():
                self.store(key, compute)
        return path

    def store(self, key: str, compute: Callable[[Path], None]) -> None:
        """Make an entry, within :meth:`locked`; ``compute`` fills an empty folder.

        Raises:
            UserError: the folder cannot be written.
        """
        with self._told():
            self._sweep(key)
            aside = self.folder / f".{key}.partial"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            try:
                compute(aside)
                for file in aside.rglob("*"):
                    if file.is_file():
                        sync(file)
                aside.rename(self.folder / key)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def drop(self, key: str) -> None:
        """Delete an entry."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    @contextmanager
    def locked(self, key: str, wait: bool = True) -> Iterator[bool]:
        """Within it no other process makes this entry.

        Args:
            key: the entry's.
            wait: whether to wait for a process that makes it now.

        Yields:
            Whether it is so: always, where it waits.
        """
        with self._told():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f".{key}.lock"
            while (lock := _lock(path)) is None and wait:
                self._pause()
                time.sleep(0.05)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                path.unlink(missing_ok=True)
                lock.close()

    def size(self) -> int:
        """Bytes on disk."""
        files = self.folder.rglob("*") if self.folder.is_dir() else ()
        return sum(file.stat().st_size for file in files if file.is_file())

    def empty(self) -> None:
        """Delete every entry that no process is computing. A run that has one mapped keeps what it has."""
        if self.folder.is_dir():
            self._sweep()
            for path in self.folder.iterdir():
                if path.is_dir() and not path.name.startswith("."):
                    shutil.rmtree(path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NO_PLACE:  # what is computed reads files too
                raise
            raise UserError(
                f"the cache, {self.folder}, cannot be written: {error.strerror}",
                "set FTK_CACHE to a folder with room; `ftk doctor --empty-cache` empties this one",
            ) from error

    def _sweep(self, own: str = "") -> None:
        """Delete what processes left that did not live to finish an entry."""
        for path in self.folder.glob(".*.partial"):
            key = path.name[1:].removesuffix(".partial")
            if key != own and (lock := _lock(self.folder / f".{key}.lock")):
                shutil.rmtree(path, ignore_errors=True)
                (self.folder / f".{key}.lock").unlink(missing_ok=True)
                lock.close()


def _lock(path: Path) -> IO[bytes] | None:
    """Lock a file, made where it is not there; None while another process has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had the lock before may have deleted the file between our two calls.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
