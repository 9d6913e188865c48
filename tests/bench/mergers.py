"""ftk merge beside mergekit on one and the same models: time, memory, and whether they agree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.bench.pairs import Measured, divided
from tests.material import smollm2_saved

SPREAD = 0.02
"""Standard deviation of what the models are more than their base, as a share of that of each weight."""

_TIMED = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Between this process and a command: a child's greatest size counts from that of the process that started it."""


@dataclass(frozen=True)
class Taken:
    """What one command took: seconds, and its greatest resident size in bytes."""

    seconds: float
    bytes: int


class Contest:
    """SmolLM2-135M as the base ``c``, and two models ``a`` and ``b`` that noise has moved away from it, float32.

    Args:
        folder: where everything is written.

    Raises:
        ClickException: mergekit is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if find_spec("mergekit") is None:
            raise click.ClickException("needs mergekit: pip install --no-deps mergekit==0.1.5 immutables")
        self.folder = folder
        source = smollm2_saved()
        weights = load_file(source / "model.safetensors")
        for number, name in enumerate("cab"):
            (folder / name).mkdir()
            for file in source.iterdir():
                if file.is_file() and file.suffix != ".safetensors":
                    shutil.copyfile(file, folder / name / file.name)
            noise = torch.Generator().manual_seed(number)
            moved = {
                key: tensor + min(number, 1) * SPREAD * tensor.std() * torch.randn(tensor.shape, generator=noise)
                for key, tensor in weights.items()
            }  # fmt: skip
            save_file(moved, folder / name / "model.safetensors", metadata={"format": "pt"})

    def ours(self, out: str, *arguments: str) -> Taken:
        """Run ``ftk merge``."""
        return self._run([sys.executable, "-m", "ftk", "merge", *arguments, "--out", out], out)

    def theirs(self, out: str, config: str) -> Taken:
        """Run mergekit's command."""
        (self.folder / "merge.yml").write_text(config)
        told = ["-m", "mergekit.scripts.run_yaml", "merge.yml", out, "--no-write-model-card"]
        return self._run([sys.executable, *told], out)

    def path(self, name: str) -> str:
        """A model's folder: mergekit takes what is no path for a model of the hub."""
        return str(self.folder / name)

    def weights(self, name: str) -> dict[str, Tensor]:
        """A model's weights."""
        return load_file(self.folder / name / "model.safetensors")

    def measure(self, config: str, arguments: Sequence[str], pairs: int) -> Measured:
        """Run both in turn; the ratios are of the times of the whole commands."""
        ours, theirs = [], []
        for _ in range(pairs):
            ours.append(self.ours("ours", *arguments))
            theirs.append(self.theirs("theirs", config))
        facts = {
            "ftk_seconds": min(taken.seconds for taken in ours),
            "mergekit_seconds": min(taken.seconds for taken in theirs),
            "ftk_peak_bytes": max(taken.bytes for taken in ours),
            "mergekit_peak_bytes": max(taken.bytes for taken in theirs),
        }
        facts["peak_ratio"] = facts["ftk_peak_bytes"] / facts["mergekit_peak_bytes"]
        ratios = divided([taken.seconds for taken in ours], [taken.seconds for taken in theirs])
        return Measured(ratios, torch.device("cpu"), facts)

    def _run(self, command: list[str], out: str) -> Taken:
        shutil.rmtree(self.folder / out, ignore_errors=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        whole = [sys.executable, "-S", "-c", _TIMED, *command]
        done = subprocess.run(whole, cwd=self.folder, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise click.ClickException(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
        seconds, kilobytes = done.stdout.split()[-2:]
        return Taken(float(seconds), int(kilobytes) * 1024)


def apart(one: dict[str, Tensor], other: dict[str, Tensor], by: float = 1e-6) -> dict[str, Tensor]:
    """Where two models differ by more than ``by``: masks by name."""
    assert one.keys() == other.keys()
    return {name: mask for name in one if (mask := (one[name] - other[name]).abs() > by).any()}
