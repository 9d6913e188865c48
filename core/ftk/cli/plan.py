"""``ftk plan``: what a recipe will take, before it is run: memory by part, steps, time, and what to change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from ftk.cli.common import (
    console,
    json_option,
    print_json,
    recipe_arguments,
    registry,
    third_party_option,
)
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe

if TYPE_CHECKING:
    from ftk.planning.changes import Change
    from ftk.planning.machine import Machine
    from ftk.planning.plan import StagePlan


@click.command()
@recipe_arguments
@click.option("--memory", metavar="SIZE", help="Plan for GPUs of this memory, as in 80GB, in place of this machine.")
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="How many share the work.")
@click.option("--probe/--no-probe", default=True, help="Whether to time a few steps, where they fit on this machine.")
@json_option
@third_party_option
def plan(
    recipe: str,
    settings: Sequence[str],
    without: Sequence[str],
    memory: str | None,
    devices: int,
    probe: bool,
    as_json: bool,
) -> None:
    """Say what RECIPE will take: parameters, memory by part, steps, tokens and time, and whether it fits.

    Data, the model's configuration and its tokenizer are read; weights are not, and none need be there. Where a
    stage does not fit, changes are tried until it does, and the exit code is 1.
    """
    plugins = registry()
    loaded = load_recipe(recipe, overrides=settings, without=without, registry=plugins)
    out = console()
    with out.status("planning") if out.is_terminal and not as_json else nullcontext():
        from ftk.planning.changes import changes
        from ftk.planning.machine import gpus, parse_memory, this_machine
        from ftk.planning.plan import Planner
        from ftk.planning.probe import timed

        machine = gpus(parse_memory(memory), devices) if memory else this_machine(devices)
        planner = Planner(loaded, machine)

        def changed(more: list[str]) -> Recipe:
            return load_recipe(recipe, overrides=[*settings, *more], without=without, registry=plugins)

        stages: list[tuple[StagePlan, list[Change]]] = []
        for number in range(1, len(loaded.stages) + 1):
            found = planner.stage(number)
            if probe and found.fits and machine.here:
                found = timed(planner, number, found)
            stages.append((found, list(changes(planner, number, found, changed))))
    if as_json:
        print_json(_as_json(loaded, machine, stages))
    else:
        _show(out, loaded, machine, stages)
    if any(found.fits is False for found, _ in stages):
        raise click.exceptions.Exit(1)


def _as_json(recipe: Recipe, machine: Machine, stages: Iterable[tuple[StagePlan, list[Change]]]) -> dict[str, Any]:
    told = [
        {
            **found.to_json(),
            "changes": [
                {"set": c.setting, "saves_bytes": c.saves, "peak_bytes": c.plan.peak, "fits": c.plan.fits}
                for c in tried
            ],
        }
        for found, tried in stages
    ]
    return {
        "schema": 1, "name": recipe.name, "fits": _together([stage["fits"] for stage in told]),
        "machine": {
            "name": machine.name, "kind": machine.kind, "here": machine.here, "devices": machine.devices,
            "memory_bytes": machine.memory, "room_bytes": machine.room,
        },
        "stages": told,
    }  # fmt: skip


def _together(fits: Sequence[bool | None]) -> bool | None:
    """Whether all stages fit; None where none does not and that of one is not known."""
    return False if False in fits else None if None in fits else True


def _show(out: Console, recipe: Recipe, machine: Machine, stages: Sequence[tuple[StagePlan, list[Change]]]) -> None:
    from ftk.planning.machine import in_words

    memory = f", {in_words(machine.memory)}" if machine.here else ""
    out.print(Text.assemble((recipe.name, "bold"), f" on {machine.name}{memory}"))
    for number, (found, tried) in enumerate(stages, start=1):
        counts = found.counts
        out.print()
        out.print(Text(f"stage {number}: {found.name}", style="bold cyan"))
        mixed = "".join(f", {source['name']} {source['share']:.1%} of the mix" for source in counts["sources"])
        rows, tokens = found.micro_batch
        of_tokens = tokens > 1  # else they are pixels or the like
        an_epoch = f", {counts['tokens_per_epoch']:,} tokens an epoch" if of_tokens else ""
        out.print(f"  {counts['rows']:,} rows{an_epoch}, {counts['steps']:,} steps of {counts['batch']}{mixed}")
        share = counts["trainable_parameters"] / counts["total_parameters"]
        out.print(
            f"  {counts['trainable_parameters']:,} of {counts['total_parameters']:,} parameters trained ({share:.1%}), "
            f"products in {found.precision}"
        )
        out.print(f"  widest micro-batch: {rows} rows{f' of {tokens:,} tokens' if of_tokens else ''}")
        out.print()
        _show_memory(out, found)
        if found.unknown:
            out.print(f"  activations and loss are not counted: {found.unknown}")
        if found.partly:
            named = ", ".join(f"`{name}`" for name in found.partly)
            out.print(f"  what depends on values, which a plan does not have, is not counted of {named}")
        out.print()
        if found.fits is None:
            out.print(
                f"  {in_words(found.peak)} on all devices and in main memory together: training.device_map decides "
                "where, and the run tells"
            )
        else:
            verdict = "it fits" if found.fits else "it does not fit"
            of = f"{in_words(found.peak)} of {in_words(machine.room)}, which leaves a tenth of the memory free"
            out.print(Text.assemble("  ", (verdict, "green" if found.fits else "bold red"), f": {of}"))
        if found.seconds_per_step is not None:
            whole = found.seconds_per_step * counts["steps"]
            out.print(f"  {found.seconds_per_step:.3g} s a step, measured here: {duration(whole)} of training")
        if found.fits is False:
            _show_changes(out, tried)


def _show_memory(out: Console, found: StagePlan) -> None:
    """A line for each part, a column for each station."""
    from ftk.planning.machine import in_words

    parts = list(dict.fromkeys(part for station in found.stations for part in station.parts))
    lines = [[part, *(in_words(station.parts[part]) if part in station.parts else "" for station in found.stations)]
             for part in parts]  # fmt: skip
    lines.append(["together", *(in_words(station.bytes) for station in found.stations)])
    names = [
        {"remember": "remembering", "step": "a step", "save": "saving"}[station.name] for station in found.stations
    ]
    rows = [["memory of a device" if found.fits is not None else "memory in all", *names], *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        out.print("  " + "   ".join(cells).rstrip())


def _show_changes(out: Console, tried: Sequence[Change]) -> None:
    from ftk.planning.machine import in_words

    for change in tried:
        fits = "it fits" if change.plan.fits else "still too much"
        out.print(f"  --set '{change.setting}'  saves {in_words(change.saves)}: {in_words(change.plan.peak)}, {fits}")
    if not tried or not tried[-1].plan.fits:
        out.print("  no further change is known: shorter rows, a smaller model or a larger device would help")


def duration(seconds: float) -> str:
    """A time in words, to two units."""
    for size, unit, lower, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // lower)} {small}"
    return f"{seconds:.0f} s"
