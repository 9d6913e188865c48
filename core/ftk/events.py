"""What happens in a run, told as it happens to every observer."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger("ftk")

EVENT_KINDS = {
    "run_started": "name, folder, stages, tasks, device",
    "phase": "text: what goes on now; done and total where it can be counted",
    "stage_started": "stage (1-based), name, steps, first_step, rows, precision, trainable_parameters, "
    "total_parameters",
    "step": "stage, step, steps, loss, learning_rate, gradient_norm, tokens_per_second; of several tasks in a stage "
    "tasks: {task: {loss, weight}}",
    "checkpoint": "stage, step, path",
    "evaluated": "stage, step, steps, tokens, scores: {task: {metric: value}} on validation data; criterion where "
    "something depends on it",
    "measured": "after (stage index, 0 is the starting model), task, metrics: {name: value}",
    "mitigation": "name, stage, and what the method reports of itself",
    "warning": "text",
    "stage_finished": "stage, name, steps, seconds, tokens, tokens_per_second",
    "run_finished": "status: completed, interrupted or failed; seconds",
}
"""Every kind of event, and what its ``data`` carries (JSON values)."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One thing that happened: its kind, when (seconds since the epoch), and its JSON data."""

    kind: str
    data: dict[str, Any]
    time: float = field(default_factory=time.time)


class Events:
    """Hands each event to every observer; an observer that raises is logged once and left out from then on."""

    def __init__(self, observers: Iterable[Callable[[RunEvent], object]]) -> None:
        self._observers = list(observers)

    def __call__(self, kind: str, **data: Any) -> None:
        """Tell every observer that ``kind`` (one of :data:`EVENT_KINDS`) happened."""
        if kind not in EVENT_KINDS:
            raise ValueError(f"unknown event kind {kind!r}")
        event = RunEvent(kind, data)
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:
                self._observers.remove(observer)
                logger.exception("an observer of run events failed and is left out: %r", observer)


class EventLog:
    """Appends every event to a ``.jsonl`` file, one JSON object a line; a line that a kill cut short stays alone."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as before:
            if before.tell():
                before.seek(-1, os.SEEK_END)
                if before.read(1) != b"\n":
                    before.write(b"\n")
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, event: RunEvent) -> None:
        line = {"time": round(event.time, 3), "kind": event.kind, **event.data}
        self._file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        self._file.close()
