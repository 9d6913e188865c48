"""Runs of one stage with some options changed, and the weights that they leave."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ftk
from ftk.events import RunEvent
from tests.system.small import ONE_STAGE, written


def run(here: Path, *overrides: str, output: str, observers: Any = ()) -> ftk.RunResult:
    return ftk.run(written(here, ONE_STAGE), output=here / output, overrides=overrides, observers=observers)


def weights(result: ftk.RunResult) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(result.folder / "model" / "model.safetensors")
    return tensors


def stopped_at(here: Path, step: int, *settings: str, output: str) -> None:
    """A run that a signal stops after this step."""

    def watch(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == step - 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ftk.Interrupted, match=f"after step {step}; saved"):
        run(here, *settings, output=output, observers=[watch])
