"""The machine that a plan is for: this one, or GPUs of a given memory."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ftk.errors import UserError
from ftk.processes.hardware import describe_device, resident_memory

GIB = 2**30
CONTEXT = GIB
"""What CUDA, its libraries and their work space take of a GPU before a tensor is there; half to one GiB by card."""

ROOM = 0.1
"""The share of a device's memory that a plan leaves free: for what the allocator cannot use, and for its own error."""


@dataclass(frozen=True)
class Machine:
    """Where a run is to take place.

    Attributes:
        name: in words.
        memory: bytes of one device; on a CPU those of one process.
        devices: how many devices share the work.
        here: whether it is this machine.
        kind: ``cpu`` or ``cuda``.
    """

    name: str
    memory: int
    devices: int
    here: bool
    kind: str

    def taken(self) -> int:
        """Bytes of one device that are taken before a model is there: by libraries and data, or by CUDA and others."""
        if not self.here:
            return CONTEXT
        if self.kind == "cpu":
            return resident_memory()
        free, total = torch.cuda.mem_get_info()
        return total - free

    @property
    def room(self) -> int:
        """The most bytes that a plan may fill on one device."""
        return int(self.memory * (1 - ROOM))


def this_machine(devices: int) -> Machine:
    """This machine, as it is now."""
    if torch.cuda.is_available():
        return Machine(describe_device(), torch.cuda.mem_get_info()[1], devices, True, "cuda")
    memory = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _limit()) // devices
    return Machine(describe_device(), memory, devices, True, "cpu")


def gpus(memory: int, devices: int) -> Machine:
    """GPUs of this memory, somewhere."""
    name = f"a GPU of {in_words(memory)}" if devices == 1 else f"{devices} GPUs of {in_words(memory)} each"
    return Machine(name, memory, devices, False, "cuda")


def parse_memory(text: str) -> int:
    """``80GB``, ``80GiB`` or ``80G`` as bytes; as cards are sold, a GB is 2³⁰ bytes.

    Raises:
        UserError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise UserError(f"--memory {text}: no size of a memory", "write it as in --memory 80GB")
    return int(float(found[1]) * (GIB if found[2].upper() == "G" else 2**20))


def in_words(size: float) -> str:
    """Bytes in MiB or GiB."""
    if size < GIB:
        return f"{size / 2**20:,.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:,.0f} MiB"
    return f"{size / GIB:,.0f} GiB" if size % GIB == 0 else f"{size / GIB:,.1f} GiB"


def _limit() -> int:
    """What the control group of this process allows it; without one, no limit."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return 2**63
