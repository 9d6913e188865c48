"""What a run runs on: versions, device, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import torch

from ftk.processes.hardware import describe_device

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
)


def environment() -> dict[str, Any]:
    """For ``environment.json``: what numbers depend on, and where the run was started."""
    return {**decisive(), "platform": platform.platform(), "command": sys.argv, "working_directory": os.getcwd()}


def decisive() -> dict[str, Any]:
    """What a run on the same machine may come out otherwise by: versions, device, threads."""
    return {
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "device": describe_device(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }
