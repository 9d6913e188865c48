"""Environments of their own, in which packages come and go without a trace here."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
import venv
from pathlib import Path


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

    def install(self, source: Path) -> None:
        """Put a package in, built from its sources."""
        # Without isolation the build needs no network: hatchling is installed beside ftk for the tests.
        done = self.module("pip", "install", "--no-deps", "--no-build-isolation", "--no-input", source)
        assert done.returncode == 0, done.stderr

    def ftk(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.module("ftk", *arguments)
