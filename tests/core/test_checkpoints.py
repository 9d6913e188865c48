"""Checkpoints are written while training goes on: what waits for what, what is kept, how a failure is told."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from ftk.disk.bundles import Bundle
from ftk.disk.checkpoints import Checkpoints
from ftk.errors import RunFailed
from ftk.events import Events

WAIT = 30.0


@dataclass
class Disk:
    """A disk that holds every write up until it is let go."""

    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    free: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    slow = Disk()
    plain = Bundle.write

    def write(self: Bundle) -> None:
        slow.reached.release()
        assert slow.free.acquire(timeout=WAIT)
        plain(self)

    monkeypatch.setattr(Bundle, "write", write)
    return slow


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    made = Checkpoints(tmp_path / "checkpoints", held=True)
    yield made
    made.close()


def names(checkpoints: Checkpoints) -> list[str]:
    return [path.name for path in checkpoints.there()]


def test_the_step_goes_on_while_the_disk_writes_and_waits_for_one_write_at_most(
    checkpoints: Checkpoints, disk: Disk
) -> None:
    weight, told = torch.zeros(3), []
    for step in (1, 2):
        if step == 2:
            threading.Timer(0.05, disk.free.release).start()
        checkpoints.save(1, step, {"w": {"w": weight}}, 9, told.append)
        assert disk.reached.acquire(timeout=WAIT)
        checkpoints.check()
        assert [path.name for path in told] == ["step-000001"][: step - 1], "told when it is on disk, not before"
        weight.add_(1)
    disk.free.release()
    checkpoints.settle()
    assert [path.name for path in told] == names(checkpoints) == ["step-000001", "step-000002"]
    assert [checkpoints.read(step)["w"]["w"].tolist() for step in (1, 2)] == [[0, 0, 0], [1, 1, 1]]


def test_the_copy_is_let_go_when_it_is_on_disk(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[weakref.ref[torch.Tensor]] = []
    plain = Bundle.write

    def write(self: Bundle) -> None:
        copies.extend(weakref.ref(tensor) for part in self.parts.values() for tensor in part.tensors.values())
        plain(self)

    monkeypatch.setattr(Bundle, "write", write)
    checkpoints.save(1, 5, {"w": {"w": torch.ones(3)}}, 2, lambda path: None)
    checkpoints.settle()
    until = time.monotonic() + WAIT  # the thread may hold it a moment longer than its result
    while copies[0]() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert [copy() for copy in copies] == [None]


def test_closing_waits_for_the_disk(checkpoints: Checkpoints, disk: Disk) -> None:
    checkpoints.save(1, 5, {"x": {"value": 1}}, 2, lambda path: None)
    threading.Timer(0.05, disk.free.release).start()
    checkpoints.close()
    assert names(checkpoints) == ["step-000005"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_write_that_fails_is_told_at_the_next_step_with_the_mend(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    told: list[Path] = []
    checkpoints.save(1, 5, {"w": {"w": torch.ones(1)}}, 2, told.append)
    checkpoints.settle()

    def full(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("ftk.disk.bundles.save_file", full)
        checkpoints.save(1, 6, {"w": {"w": torch.ones(1)}}, 1, told.append)
        while not checkpoints._written[0].done():  # type: ignore[index]
            pass
        with pytest.raises(RunFailed, match=r"step-000006: .* cannot be written: No space left.*\n  make room"):
            checkpoints.check()
    checkpoints.check()
    assert [path.name for path in told] == names(checkpoints) == ["step-000005"], "and the one before is kept"
    assert [path.name for path in checkpoints.path.iterdir()] == ["step-000005"]


def test_the_best_weights_are_kept_as_long_as_a_checkpoint_counts_on_them(checkpoints: Checkpoints) -> None:
    there = []
    for step, best in ((0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (5, 3), (6, None)):
        checkpoints.save(1, step, {"x": {"value": step}}, 2, lambda path: None, best)
        checkpoints.settle()
        there.append([int(name[-6:]) for name in names(checkpoints)])
    assert there == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [3, 4], [3, 4, 5], [3, 5, 6]]
    (checkpoints.path / "step-000006" / "x.json").write_text("{}")
    assert checkpoints.latest(1, Events([])) == (5, {"x": {"value": 5}})
    assert checkpoints.read(3) == {"x": {"value": 3}}
