"""Seconds of mitigations: the program's own on a CPU, the device's where work is done behind the program's back."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import torch

from ftk.report.clock import Clock


class Device:
    """A device that does its work later: a queue of seconds, and events that pass when it has come to them."""

    def __init__(self) -> None:
        self.queued = 0.0
        self.done = 0.0
        self.waited = 0

    def work(self, seconds: float) -> None:
        self.queued += seconds

    def event(self, device: torch.device, enable_timing: bool) -> Event:
        assert device.type == "cuda"
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, device: Device) -> None:
        self.device = device

    def record(self) -> None:
        self.at = self.device.queued

    def query(self) -> bool:
        return self.device.done >= self.at

    def synchronize(self) -> None:
        self.device.waited += 1
        self.device.done = max(self.device.done, self.at)

    def elapsed_time(self, later: Event) -> float:
        assert self.query()
        assert later.query(), "read before it has passed"
        return (later.at - self.at) * 1000


def test_on_a_cpu_it_is_the_programs_time() -> None:
    clock = Clock(["slow", "idle"], torch.device("cpu"))
    before = time.perf_counter()
    with suppress(ValueError), clock.timed("slow"):
        time.sleep(0.02)
        raise ValueError
    assert 0.02 <= clock.seconds()["slow"] <= time.perf_counter() - before
    assert clock.seconds()["idle"] == 0


def test_on_an_accelerator_it_is_the_devices_time_and_no_step_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "Event", device.event)
    clock = Clock(["ewc", "replay"], torch.device("cuda"))
    for step in range(100):
        device.work(1.0)  # of the model: nobody's
        with clock.timed("ewc"):
            device.work(0.25)
        with clock.timed("replay"):
            device.work(0.5)
        device.done = device.queued - 2  # it lags behind by more than a step
        assert len(clock._waiting) < 10, f"at step {step} events that have passed are let go"
    assert device.waited == 0
    assert clock.seconds() == pytest.approx({"ewc": 25.0, "replay": 50.0})
    assert device.waited > 0


def test_sums_go_on_from_those_of_a_checkpoint() -> None:
    clock = Clock(["ewc", "new"], torch.device("cpu"))
    clock.set({"ewc": 5.0, "dropped": 7.0})
    assert clock.seconds() == {"ewc": 5.0, "new": 0.0}
