"""What a user watches while several runs go one after the other: one bar on a terminal, a line a run elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ftk.events import RunEvent
from ftk.report.progress import BAR_WIDTH


class SeriesDisplay:
    """Shows how far a series of runs is.

    Args:
        console: where to; its ``is_terminal`` decides between a live bar and plain lines.
        total: how many runs there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self._started = time.monotonic()
        self._name = self._stage = ""
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=BAR_WIDTH))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)

    def close(self) -> None:
        """Take the live bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def began(self, number: int, name: str) -> None:
        """A run begins; ``number`` counts from 1."""
        self._started, self._name, self._stage = time.monotonic(), f"[{number}/{self.total}] {name}", ""
        if self._bar is None:
            self._print(self._name)
        self._show("", None, None)

    def __call__(self, event: RunEvent) -> None:
        """Something happens in it."""
        data: dict[str, Any] = event.data
        if event.kind == "phase":
            self._show(data["text"], data.get("done"), data.get("total"))
        elif event.kind == "stage_started":
            self._stage = f"stage {data['name']}"
        elif event.kind == "step":
            self._show(self._stage, data["step"], data["steps"])
        elif event.kind == "warning":
            self._print(f"  warning: {data['text']}")

    def ended(self, number: int, name: str, told: str, known: bool) -> None:
        """A run has ended; ``told`` is what to say of it, ``known``: it had finished before."""
        seconds = "finished before" if known else f"{time.monotonic() - self._started:,.0f} s"
        self._print(f"[{number}/{self.total}] {name}: {told}, {seconds}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _show(self, text: str, done: float | None, total: float | None) -> None:
        if self._bar is not None:
            room = max(10, self.console.width - BAR_WIDTH - 12)
            description = f"{self._name}: {text}"[:room]
            self._bar.update(self._task, description=description, completed=done or 0, total=total)
