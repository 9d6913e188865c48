"""``ftk list-plugins`` with few and with many third-party variants installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from tests.bench.pairs import Measured, alternate, divided
from tests.core.conftest import install

WHAT = "time of `ftk list-plugins` with 500 third-party variants (50 packages) over 10 (one package)"
GOAL = None
FEW, MANY, IN_PACKAGE = 10, 500, 10

PLUGIN = """from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations():
    return [
        Variant(
            name=f"{package}_{{number}}", summary="Made up.",
            options="{package}.options:MadeUp", build="{package}.part:MadeUp", needs=("weight-drift",),
        )
        for number in range({count})
    ]
"""


def measure(folder: Path, quick: bool) -> Measured:
    """Run it. Bytecode is cached, as pip leaves it; the first listing of each does not count."""
    pairs = 3 if quick else 11
    device = torch.device("cpu")
    many, few = (listing(folder / str(count), count) for count in (MANY, FEW))
    slow, fast = alternate(many, few, pairs, device)
    facts = {f"seconds_with_{MANY}": median(slow), f"seconds_with_{FEW}": median(fast)}
    return Measured(divided(slow, fast), device, facts)


def listing(folder: Path, variants: int) -> Callable[[], None]:
    """Install so many variants into ``folder``; what is returned lists them in a process of its own."""
    for number in range(variants // IN_PACKAGE):
        package = f"made_up_{number}"
        text = PLUGIN.format(package=package, count=IN_PACKAGE)
        install(folder, package, {f"{package}/__init__.py": text}, {"made_up": package}, "1.0")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(folder), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}

    def run() -> None:
        command = [sys.executable, "-m", "ftk", "list-plugins"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.count("made_up_") >= variants

    return run
