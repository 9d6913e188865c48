"""What the verbs share: options, the registry, JSON, and tables that fit a terminal and a pipe."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftk.cli.settings import Settings
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Registry
from ftk.recipe.reading import SEEDS
from ftk.report.console import SafeConsole

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of numbers, which ``nan`` and ``inf`` are outside of."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, if it is one."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found


class PathGiven(click.Path):
    """A path that names something: ``Path("")`` is the folder where one stands, which nobody means by it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, if it is one."""
        if not os.fspath(value).strip():
            self.fail("the path is empty.", param, ctx)
        return super().convert(value, param, ctx)


def recipe_arguments(command: Command) -> Command:
    """Give a verb RECIPE, ``--set`` and ``--without``, as ``recipe``, ``settings`` and ``without``."""
    command = click.option("--without", multiple=True, metavar="NAME", help="Leave a mitigation out. May be repeated.")(
        command
    )
    command = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE",
        help="Change the recipe, as in training.epochs=5 or mitigation.ewc.strength=1. May be repeated.",
    )(command)  # fmt: skip
    return click.argument("recipe", type=PathGiven())(command)


def json_option(command: Command) -> Command:
    """Give a verb ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def seeds_option(command: Command) -> Command:
    """Give a verb ``--seeds``, as ``seeds``: whole numbers, each once; none where the recipe's own is meant."""

    def read(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
        try:
            found = () if value is None else tuple(int(part) for part in value.split(","))
        except ValueError:
            found = (-1,)
        if len(set(found)) < len(found) or not all(0 <= seed < SEEDS for seed in found):
            raise click.BadParameter(f"`{value}` are no seeds; write whole numbers, each once: 0,1,2")
        return found

    return click.option(
        "--seeds", metavar="N,N", callback=read, help="Run each with these seeds, as 0,1,2. Default: the recipe's."
    )(command)


def third_party_option(command: Command) -> Command:
    """Let ``--no-third-party`` stand after the verb as well as before it."""

    def turn_off(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Settings).third_party = False

    return click.option(
        "--no-third-party", is_flag=True, expose_value=False, callback=turn_off,
        help="Load only the plugins that come with ftk.",
    )(command)  # fmt: skip


def registry() -> Registry:
    """The plugins, as the command line asks for them."""
    return load_registry(third_party=click.get_current_context().ensure_object(Settings).third_party)


def print_json(value: Any) -> None:
    """Print JSON for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> Console:
    """Standard output as rich writes to it: colours on a terminal, plain and unwrapped text elsewhere."""
    found = SafeConsole(highlight=False, emoji=False, markup=False)
    return found if found.is_terminal else SafeConsole(highlight=False, emoji=False, markup=False, soft_wrap=True)


def print_table(out: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], wide: int) -> None:
    """Print a table: framed and wrapped on a terminal, one aligned line a row elsewhere.

    Args:
        out: where to.
        columns: the headings; empty for none.
        rows: the cells as text.
        wide: which column takes what room is left, and wraps.
    """
    if out.is_terminal:
        table = Table(box=None, show_header=bool(columns), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for index in range(len(rows[0]) if rows else 0):
            heading = columns[index] if columns else ""
            table.add_column(heading, overflow="fold", no_wrap=index != wide, ratio=1 if index == wide else None)
        for row in rows:
            table.add_row(*(Text(cell, style="bold" if index == 0 else "") for index, cell in enumerate(row)))
        out.print(table)
        return
    lines = [list(columns), *map(list, rows)] if columns else [list(row) for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))] if lines else []
    for line in lines:
        out.print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_note(out: Console, text: str) -> None:
    """Print something that a reader should know and need not mend."""
    out.print(Text.assemble(("note: ", "yellow"), text))
