"""``python -m tests.bench``: how fast ftk is beside what else could do the work, as ratios measured in pairs."""

from __future__ import annotations

import json
import platform
import time
from importlib import import_module, metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.table import Table

BENCHMARKS = (
    "step_small", "step_smollm2", "ewc_step", "ewc_factored", "ewc_full", "mitigation_step", "fisher_loop",
    "fisher_batched", "checkpoint_step", "list_plugins", "loss_memory", "plan_memory",
    "data_first", "data_second", "text_first", "text_second", "data_memory", "transforms", "packing",
    "merge_linear", "merge_slerp", "merge_ties",
)  # fmt: skip
LIBRARIES = ("torch", "transformers", "accelerate", "peft")


@click.command()
@click.option("--only", type=click.Choice(BENCHMARKS), multiple=True, help="Run this one; may be given several times.")
@click.option("--quick", is_flag=True, help="Few pairs: shows that everything runs, not how fast.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the results here too.")
def main(only: tuple[str, ...], quick: bool, path: Path | None) -> None:
    """Measure how fast ftk is, as ratios of times in alternating pairs."""
    out = Console(stderr=True)
    results = []
    for name in only or BENCHMARKS:
        out.print(f"{name} …")
        results.append(result_of(name, quick))
    print_table(results)
    if path:
        path.write_text(json.dumps({"schema": 1, **environment(), "results": results}, indent=2) + "\n")


def result_of(name: str, quick: bool) -> dict[str, Any]:
    """Run one benchmark and tell what it found, as JSON values."""
    import torch

    benchmark = import_module(f"tests.bench.{name}")
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        measured = benchmark.measure(Path(folder), quick)
    goal = benchmark.GOAL
    return {
        "name": name,
        "what": benchmark.WHAT,
        "ratio": measured.median,
        "min": min(measured.ratios),
        "max": max(measured.ratios),
        "goal": str(goal) if goal else None,
        "met": goal.met_by(measured.median) if goal else None,
        "pairs": len(measured.ratios),
        "device": device_name(measured.device),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - started, 1),
        "facts": measured.facts,
    }


def environment() -> dict[str, Any]:
    """What the benchmarks ran with."""
    return {"python": platform.python_version(), "libraries": {name: metadata.version(name) for name in LIBRARIES}}


def device_name(device: Any) -> str:
    """The device with its kind in words."""
    import torch

    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def print_table(results: list[dict[str, Any]]) -> None:
    """Print a row for each benchmark, and below the table what each compares with its further numbers."""
    table = Table(box=None, header_style="bold")
    for heading in ("benchmark", "ratio", "min – max", "goal", "", "pairs", "device", "threads"):
        table.add_column(heading, no_wrap=True)
    for found in results:
        table.add_row(
            found["name"], f"{found['ratio']:.3f}", f"{found['min']:.3f} – {found['max']:.3f}", found["goal"] or "",
            {True: "met", False: "missed", None: ""}[found["met"]], str(found["pairs"]), found["device"],
            str(found["threads"]),
        )  # fmt: skip
    out = Console(width=None if Console().is_terminal else 120, highlight=False)
    out.print(table)
    for found in results:
        out.print(f"\n{found['name']}: {found['what']}", soft_wrap=True)
        for name, value in found["facts"].items():
            out.print(f"  {name} {value:.4g}" if isinstance(value, float) else f"  {name} {value}")


if __name__ == "__main__":
    main()
