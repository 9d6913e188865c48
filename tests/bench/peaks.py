"""The most memory that a piece of work takes beyond what was taken before it."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from tests.bench.pairs import Piece, synchronize

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_bytes(piece: Piece, device: torch.device) -> int:
    """Run ``piece`` and tell its peak in bytes: of the allocator on a GPU, else of the process (Linux only).

    On a CPU only what is allocated in large blocks is seen exactly; they are given back to the system when freed.
    """
    gc.collect()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        piece()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _RESET.write_text("5")  # the greatest resident size of the process begins anew, see proc(5)
    before = _resident("VmRSS")
    piece()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
