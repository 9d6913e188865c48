"""Seeds that depend on what they are for alone, and torch's generators set by one."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*keys: object) -> int:
    """Hash ``keys`` into a seed of 63 bits: the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(str(key) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Set torch's global generators of the CPU and of ``device``."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
