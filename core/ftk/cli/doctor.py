"""``ftk doctor``: whether this installation can run recipes, on what, and with which plugins."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ftk.cli.common import console, json_option, print_json, print_table, registry, third_party_option
from ftk.cli.list_plugins import print_broken
from ftk.data.cache import Cache, cache_folder
from ftk.plugin.registry import OWN_DISTRIBUTION, one_line, own_version

IMPORTED = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "tokenizers")
"""The packages that a run imports; an installed package may still not load, so each is imported here."""


@click.command()
@json_option
@third_party_option
@click.option(
    "--empty-cache",
    is_flag=True,
    help="First delete what is kept for later runs: encoded rows, shared stages.",
)
def doctor(as_json: bool, empty_cache: bool) -> None:
    """Check this installation: versions, devices, memory, disk and plugins.

    The exit code is 1 if something is broken.
    """
    cache = Cache(cache_folder())
    if empty_cache:
        cache.empty()
    packages = _packages()
    found = registry()
    devices = _devices() if all(row["problem"] == "" for row in packages if row["name"] == "torch") else []
    facts = {
        "ftk": own_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count() or 1,
        "memory_bytes": _memory(),
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "folder": str(Path.cwd()),
        "cache": {"folder": str(cache.folder), "bytes": cache.size()},
    }
    plugins = [{name: getattr(plugin, name) for name in plugin.__slots__} for plugin in found.plugins]
    conflicts = [f"{entry.kind} {entry.qualified}" for entry in found.entries() if entry.status == "conflict"]
    healthy = not found.broken() and not any(row["problem"] for row in packages) and bool(found.entries())
    if as_json:
        print_json({
            "schema": 1, "healthy": healthy, **facts, "devices": devices, "packages": packages,
            "plugins": plugins, "conflicts": conflicts,
        })  # fmt: skip
    else:
        _print(facts, devices, packages, conflicts)
        out = console()
        working = sum(plugin.status == "ok" for plugin in found.plugins)
        out.print(f"plugins  {working} of {len(found.plugins)} work; they offer {len(found.entries())} variants")
        for plugin in found.plugins:
            if plugin.status != "ok":
                print_broken(plugin)
        out.print()
        good = Text("everything works", style="green")
        out.print(good if healthy else Text("something is broken, see above", style="red"))
    if not healthy:
        raise click.exceptions.Exit(1)


def _packages() -> list[dict[str, str]]:
    """What ftk requires: the version there is, the one required, and what is wrong with it."""
    from packaging.requirements import Requirement

    rows = []
    try:
        requirements = [Requirement(text) for text in metadata.requires(OWN_DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        mend = "ftk itself is not installed: pip install -e ."
        return [{"name": OWN_DISTRIBUTION, "version": "", "required": "", "problem": mend}]
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        row = {"name": requirement.name, "version": "", "required": str(requirement.specifier), "problem": ""}
        rows.append(row)
        try:
            row["version"] = metadata.version(requirement.name)
            if not requirement.specifier.contains(row["version"], prereleases=True):
                row["problem"] = f'pip install "{requirement.name}{requirement.specifier}"'
            elif requirement.name in IMPORTED:
                importlib.import_module(requirement.name)
        except metadata.PackageNotFoundError:
            row["problem"] = f'not installed: pip install "{requirement.name}{requirement.specifier}"'
        except (Exception, SystemExit) as error:
            row["problem"] = one_line(error)
    return rows


def _devices() -> list[dict[str, Any]]:
    """What a run can compute on; memory in bytes, 0 where it is the machine's own."""
    import torch

    from ftk.processes.hardware import has_bf16

    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        name = torch.cuda.get_device_name(index)
        devices.append({"name": name, "bf16": has_bf16(torch.device("cuda", index)), "memory_bytes": memory})
    if torch.backends.mps.is_available():
        devices.append({"name": "Apple GPU", "bf16": has_bf16(torch.device("mps")), "memory_bytes": 0})
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} threads" if threads > 1 else "CPU, 1 thread"
    devices.append({"name": cpu, "bf16": has_bf16(torch.device("cpu")), "memory_bytes": 0})
    return devices


def _memory() -> int:
    """The machine's memory in bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _print(
    facts: dict[str, Any], devices: list[dict[str, Any]], packages: list[dict[str, str]], conflicts: list[str]
) -> None:
    out, kept = console(), facts["cache"]
    rows = [
        ["ftk", f"{facts['ftk']}, Python {facts['python']} ({sys.executable})"],
        ["system", facts["platform"]],
        ["memory", f"{_gigabytes(facts['memory_bytes'])}, {facts['cpus']} processors"],
        ["disk", f"{_gigabytes(facts['free_disk_bytes'])} free in {facts['folder']}"],
        [
            "cache",
            f"{kept['bytes'] / 2**30:.2f} GiB of rows and stages in {kept['folder']}; --empty-cache empties it",
        ],
    ]
    for device in devices:
        memory = f", {_gigabytes(device['memory_bytes'])}" if device["memory_bytes"] else ""
        bf16 = "bf16 in hardware" if device["bf16"] else "no bf16 in hardware: precision auto means fp32"
        rows.append(["device", f"{device['name']}{memory}, {bf16}"])
    print_table(out, (), rows, wide=1)
    out.print()
    versions = [[row["name"], row["version"], row["required"], row["problem"] or "ok"] for row in packages]
    print_table(out, ("package", "version", "required", "status"), versions, wide=3)
    out.print()
    for conflict in conflicts:
        out.print(f"several plugins offer {conflict}: a recipe must name the distribution too")


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size else "unknown"
