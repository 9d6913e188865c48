"""How long parts of a run take, told honestly where the device works behind the program's back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Sums seconds by name.

    On a CPU they are the program's own. An accelerator is handed its work and does it later: there an event is
    recorded on its stream before and after, which tells when it came by. Events are read once they have passed,
    or when the sums are asked for; no step waits for them.

    Args:
        names: what is timed.
        device: where the work is done.
    """

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self._seconds = dict.fromkeys(names, 0.0)
        self._device = device
        self._waiting: deque[tuple[str, Any, Any]] = deque()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count what is done within; one inside another counts for both."""
        if self._device.type == "cpu":
            started = time.perf_counter()
            try:
                yield
            finally:
                self._seconds[name] += time.perf_counter() - started
            return
        before, after = self._event(), self._event()
        before.record()
        try:
            yield
        finally:
            after.record()
            self._waiting.append((name, before, after))
            while self._waiting and self._waiting[0][2].query():
                self._read_oldest()

    def seconds(self) -> dict[str, float]:
        """The sums so far; waits for what the device has not done yet."""
        while self._waiting:
            self._waiting[0][2].synchronize()
            self._read_oldest()
        return dict(self._seconds)

    def set(self, seconds: Mapping[str, float]) -> None:
        """Go on from these sums; names that are not timed here are passed over."""
        self._waiting.clear()
        self._seconds.update({name: seconds[name] for name in self._seconds if name in seconds})

    def _read_oldest(self) -> None:
        name, before, after = self._waiting.popleft()
        self._seconds[name] += before.elapsed_time(after) / 1000

    def _event(self) -> Any:
        return torch.Event(self._device, enable_timing=True)
