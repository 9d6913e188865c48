"""What a user watches during a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from ftk.events import RunEvent
from ftk.report.rows import number

PLAIN_REPORTS = 10
"""How many lines of loss a stage prints where there is no terminal."""

MANY = 8
"""Above so many tasks, what was measured of all of them is one line."""

BAR_WIDTH = 10
"""Columns of the live bar itself."""


class Count(MofNCompleteColumn):
    """How much of the work is done, where it can be counted."""

    def render(self, task: Task) -> Text:
        """``12/40``, or nothing."""
        return Text() if task.total is None else super().render(task)


class ProgressDisplay:
    """An observer of run events that shows them on a console.

    Args:
        console: where to; its ``is_terminal`` decides between the live display and plain lines.

    Attributes:
        started: whether there was a run to show: one that is finished already is not run again.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = False
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._every = 1
        self._tasks = 0
        self._measured: list[dict[str, float]] = []

    def __call__(self, event: RunEvent) -> None:
        handler = getattr(self, f"_on_{event.kind}", None)
        if handler is not None:
            handler(event.data)

    def close(self) -> None:
        """Take the live display down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _on_run_started(self, data: dict[str, Any]) -> None:
        self.started = True
        self._tasks = len(data["tasks"])
        self.console.print(
            f"[bold]{escape(data['name'])}[/] on {data['device']} → {escape(data['folder'])}", highlight=False
        )
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=BAR_WIDTH), Count(),
                TextColumn("[dim]{task.fields[numbers]}"), TimeRemainingColumn(compact=True),
                console=self.console, transient=True,
            )  # fmt: skip
            self._bar.start()

    def _on_phase(self, data: dict[str, Any]) -> None:
        text, total = data["text"], data.get("total")
        if self._bar is not None:
            self._show(text, data.get("done", 0), total)
        elif text != self._phase and not (self._tasks > MANY and text.startswith("measuring ")):
            self.console.print(f"  {text}", style="dim", highlight=False, markup=False)
        self._phase = text

    def _on_stage_started(self, data: dict[str, Any]) -> None:
        trained, total = data["trainable_parameters"], data["total_parameters"]
        self.console.print(
            f"[bold]stage {data['stage']}: {escape(data['name'])}[/]\n"
            f"  {data['rows']:,} rows, {data['steps']:,} steps, "
            f"{trained:,} of {total:,} parameters trained ({trained / total:.1%})",
            highlight=False,
        )
        if data["first_step"]:
            self.console.print(f"  going on after step {data['first_step']:,}", highlight=False)
        self._phase = ""
        self._every = max(1, data["steps"] // PLAIN_REPORTS)
        self._next = data["first_step"] + 1
        if self._bar is not None:
            self._show(f"stage {data['stage']}", data["first_step"], data["steps"])

    def _on_step(self, data: dict[str, Any]) -> None:
        speed = f"{data['tokens_per_second']:,.0f} tokens/s"
        numbers = [f"loss {data['loss']:.4f}", f"lr {data['learning_rate']:.1e}", speed]
        if self._bar is not None:
            text = f"stage {data['stage']}"
            told = self._fitted(numbers, beside=f"{text} {data['steps']}/{data['steps']} 00:00:00 ")
            self._show(text, data["step"], data["steps"], told)
        elif data["step"] >= self._next or data["step"] == data["steps"]:
            self._next = data["step"] + self._every
            self.console.print(f"  step {data['step']:>6,}/{data['steps']:,}  {'  '.join(numbers)}", highlight=False)

    def _on_evaluated(self, data: dict[str, Any]) -> None:
        """The first metric of each task, so that the line stays short."""
        firsts = [(task, *next(iter(scores.items()))) for task, scores in data["scores"].items()]
        told = "  ".join(f"{task} {metric} {number(value)}" for task, metric, value in firsts[-MANY:])
        if len(firsts) > MANY:
            told = f"(the last {MANY} of {len(firsts)} tasks) {told}"
        line = f"  evaluated at {data['step']:,}/{data['steps']:,}: {told}"
        self.console.print(line, highlight=False, markup=False)

    def _on_measured(self, data: dict[str, Any]) -> None:
        told = "  ".join(f"{name} {value:.3f}" for name, value in data["metrics"].items())
        if self._tasks > MANY:
            self._measured.append(data["metrics"])
            if len(self._measured) == self._tasks:
                self._tell_measured()
        elif told:
            self.console.print(f"  measured {data['task']}: {told}", highlight=False, markup=False)

    def _tell_measured(self) -> None:
        """One line for a measurement of all tasks: the mean of each metric over those that have it."""
        values: dict[str, list[float]] = {}
        for metrics in self._measured:
            for name, value in metrics.items():
                values.setdefault(name, []).append(value)
        self._measured = []
        told = "  ".join(f"{name} {fmean(found):.3f}" for name, found in values.items())
        if told:
            self.console.print(f"  measured {self._tasks} tasks, on average {told}", highlight=False, markup=False)

    def _on_warning(self, data: dict[str, Any]) -> None:
        self.console.print(f"[yellow]warning:[/] {escape(data['text'])}", highlight=False)

    def _on_run_finished(self, data: dict[str, Any]) -> None:
        self.close()

    def _fitted(self, numbers: list[str], beside: str) -> str:
        """The numbers that fit on the line; two columns stay free for the ``^C`` that a terminal echoes."""
        room = self.console.width - BAR_WIDTH - len(beside) - 3
        while numbers and len("  ".join(numbers)) > room:
            numbers = numbers[:-1]
        return "  ".join(numbers)

    def _show(self, text: str, done: float, total: float | None, numbers: str = "") -> None:
        """Show one bar, made anew for each kind of work so that its time left is of that work alone."""
        assert self._bar is not None
        if self._task is None or self._bar.tasks[0].description != text:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(text, total=total, completed=int(done), numbers=numbers)
        else:
            self._bar.update(self._task, total=total, completed=done, numbers=numbers)
