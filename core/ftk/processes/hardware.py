"""Which device a run uses, what it can compute in, and the memory it takes."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import torch

from ftk.errors import UserError

M_MMAP_THRESHOLD = -3
"""The number of that option of ``mallopt``, as in glibc's ``malloc.h``."""

LARGE_BLOCK = 4 << 20
"""Bytes: with a smaller size, small models take longer for the pages that each block takes anew."""


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products run in hardware on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return _cpu_multiplies_bf16() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Turn ``auto`` into ``bf16`` where the device has it in hardware, else ``fp32``.

    Raises:
        UserError: the device cannot compute in what was asked for.
    """
    if wanted == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise UserError(
            'training.precision = "fp16" needs a GPU, and this run is on the CPU',
            'write precision = "auto", "bf16" or "fp32"',
        )
    return wanted


def describe_device() -> str:
    """The device that a run takes here, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} ({torch.cuda.device_count()} in all)"
    if torch.backends.mps.is_available():
        return "Apple GPU (mps)"
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int:
    """The most memory held since :func:`forget_peak`, in bytes: of the device where it counts, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> None:
    """Let :func:`peak_memory` begin anew, where the system can: a process may run several recipes one after another."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # no Linux, or one that does not allow it


def give_back_large_blocks() -> None:
    """Have glibc take each block of :data:`LARGE_BLOCK` bytes from the system, and give it back when it is freed.

    By itself it raises that size as blocks are freed, and its heap then keeps a fifth to a half more than there is
    in it, because torch asks for aligned blocks, whose gaps glibc does not find again. Other C libraries are left
    alone, and so is a size that the environment sets.
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def resident_memory() -> int:
    """What this process holds in memory now, in bytes; where the system does not say, the most that it held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory(torch.device("cpu"))
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_multiplies_bf16() -> bool:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return bool(supported or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
