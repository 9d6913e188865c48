"""A process with the libraries loaded that forks one new ``ftk`` for each request: real ones without the wait."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGES = "FTK_TEST_PAGES"
"""Set in its environment, a process writes the page of its run; else it saves the time."""

WAIT = 60.0
"""Seconds after which a process that has not ended counts as hanging."""


@dataclass(frozen=True)
class Death:
    """When a process kills itself with SIGKILL.

    Attributes:
        event: at the first run event of this kind whose data hold ``data``.
        data: what the event must say, as in ``{"stage": 2, "step": 5}``.
        writes: or before this many-th operation on files that a run syncs, links, renames or deletes, from 1.
    """

    event: str = ""
    data: Mapping[str, Any] | None = None
    writes: int = 0


class Process:
    """One ``ftk`` that was started.

    Attributes:
        pid: its id.
        output: the file that its stdout and stderr go to.
    """

    def __init__(self, forge: Forge, pid: int, output: Path) -> None:
        self._forge = forge
        self.pid = pid
        self.output = output

    def wait(self) -> int:
        """Its exit code, negative where a signal ended it.

        Raises:
            TimeoutError: it hangs; it is killed then.
        """
        until = time.monotonic() + WAIT
        while (code := self._forge.ask({"poll": self.pid})) is None:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(self.told())
            time.sleep(0.02)
        return int(code)

    def told(self) -> str:
        """What it has written so far, on stdout and stderr."""
        return self.output.read_text(encoding="utf-8")


class Forge:
    """The near side: starts processes, one after another or several at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, request: Mapping[str, Any]) -> Any:
        """One request to the server and its answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        death: Death | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start ``ftk ARGUMENTS``."""
        self._count += 1
        output = self._folder / f"{self._count}.txt"
        request = {
            "arguments": [str(argument) for argument in arguments], "output": str(output),
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(environment or {}), "death": vars(death) if death else None,
        }  # fmt: skip
        return Process(self, self.ask(request), output)

    def run(self, *arguments: str | Path, **options: Any) -> tuple[int, str]:
        """Start ``ftk ARGUMENTS`` and wait: its exit code and what it wrote."""
        process = self.start(*arguments, **options)
        return process.wait(), process.told()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(WAIT)


def serve() -> None:
    """The far side: answers one request a line until its input ends. It computes nothing, so forks are safe."""
    import ftk.report.progress
    import ftk.report.terminal
    import ftk.running.runner  # noqa: F401
    import ftk_plugins.adaptations.full.full
    import ftk_plugins.adaptations.lora.lora
    import ftk_plugins.mitigations.ewc.ewc
    import ftk_plugins.models.scratch.scratch
    import ftk_plugins.objectives.instruction.instruction  # noqa: F401

    codes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "poll" in request:
            if request["poll"] not in codes:
                pid, status = os.waitpid(request["poll"], os.WNOHANG)
                if pid:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            answer = codes.get(request["poll"])
        else:
            answer = os.fork()
            if answer == 0:
                _be_ftk(**request)
        print(json.dumps(answer), flush=True)


def _be_ftk(
    arguments: Sequence[str], output: str, cwd: str, environment: Mapping[str, str], death: dict[str, Any] | None
) -> None:
    """In the child: become the command, and never come back."""
    code = 70
    try:
        sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.chdir(cwd)
        os.environ.update(environment)
        sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
        sys.argv = ["ftk", *arguments]
        if death:
            die_at(Death(**death))
        from ftk.cli import main

        if PAGES not in environment:
            import ftk.pictures

            ftk.pictures.write_at_end = lambda folder, events: None
        main()
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def die_at(death: Death) -> None:
    """Arrange that this process is gone, without a chance to clean up, when the moment comes."""
    from ftk.events import Events

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    tell = Events.__call__

    def watched(self: Events, kind: str, **data: Any) -> None:
        tell(self, kind, **data)
        if kind == death.event and all(data.get(key) == value for key, value in (death.data or {}).items()):
            die()

    Events.__call__ = watched  # type: ignore[method-assign]
    if death.writes:
        left = death.writes

        def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    die()
                return operation(*arguments, **options)

            return call

        for module, name in ((os, "fsync"), (os, "link"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree")):
            setattr(module, name, counted(getattr(module, name)))


def random_deaths(seed: int, count: int) -> Iterator[Death]:
    """Moments anywhere in a run, some in the middle of a write; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        yield Death(writes=chance.randint(1, 120))


if __name__ == "__main__":
    serve()
