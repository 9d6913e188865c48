"""A headless browser for tests of pages: one on the PATH, or one fetched from npm; driven through pipes."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fetching import FetchFailed, kept

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""What a browser may be called on the PATH."""

PACKAGE, VERSION = "@sparticuz/chromium", "153.0.0"
"""Of npm: holds a headless Chromium (BSD-3-Clause) as one file, 67 MB, and libraries that a bare system lacks."""

WAIT = 30.0
"""Seconds in which the browser must answer."""

_UNPACK = """
const zlib = require("node:zlib"), fs = require("node:fs"), { pipeline } = require("node:stream/promises");
const [from, to] = process.argv.slice(1);
pipeline(fs.createReadStream(from), zlib.createBrotliDecompress(), fs.createWriteStream(to));
"""


def browser() -> tuple[Path, dict[str, str]]:
    """The program, and what its environment needs beside.

    Raises:
        FetchFailed: there is none, and npm gave none.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return Path(found), {}
    folder = kept(f"chromium-{VERSION}", _fetch)
    return folder / "chromium", {"LD_LIBRARY_PATH": str(folder / "lib")}


def _fetch(folder: Path) -> None:
    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise FetchFailed(f"{PACKAGE}@{VERSION}: {done.stderr.strip()[-500:]}")

    try:
        run("npm", "pack", "--silent", f"{PACKAGE}@{VERSION}")
        [archive] = folder.glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        archive.unlink()
        packages = folder / "package" / "bin"
        run("node", "-e", _UNPACK, str(packages / "chromium.br"), str(folder / "chromium"))
        run("node", "-e", _UNPACK, str(packages / "al2023.tar.br"), str(folder / "libraries.tar"))
        with tarfile.open(folder / "libraries.tar") as packed:
            packed.extractall(folder, filter="data")
        (folder / "libraries.tar").unlink()
        (folder / "chromium").chmod(0o755)
        shutil.rmtree(folder / "package")
    except (OSError, ValueError) as error:
        raise FetchFailed(f"{PACKAGE}@{VERSION}: {error}") from error


class Tab:
    """One page of a browser that was started for it, by the DevTools protocol.

    Attributes:
        events: what the browser told of the page, by method, in order.
    """

    def __init__(self, folder: Path) -> None:
        program, environment = browser()
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{there} 4>&{back}', str(program), *flags], pass_fds=(there, back),
            env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        self._numbers = itertools.count(1)
        self._left = b""
        self._session: dict[str, str] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and give its result."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(request).encode() + b"\0")
        answer: dict[str, Any] = self._until(lambda message: message.get("id") == number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path) -> None:
        """Load a file and wait until all of it is there."""
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        if not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page, whatever the page's policy."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until = time.monotonic() + WAIT
        while True:
            while b"\0" in self._left:
                line, _, self._left = self._left.partition(b"\0")
                message: dict[str, Any] = json.loads(line)
                if "method" in message:
                    self.events.append((message["method"], message.get("params", {})))
                if wanted(message):
                    return message
            if not select.select([self._read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            read = os.read(self._read, 1 << 16)
            if not read:
                raise EOFError("the browser has gone")
            self._left += read
