"""``ftk list-plugins``: what a recipe can name here, who offers it, and what is broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from ftk.cli.common import console, json_option, print_json, print_table, registry, third_party_option
from ftk.errors import did_you_mean
from ftk.plugin.registry import OWN_DISTRIBUTION, Entry, PluginInfo
from ftk.plugin.variant import KINDS


class Kind(click.ParamType[str]):
    """A kind of variant, in the singular or the plural."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the kind in the singular."""
        kind = str(value).lower().removesuffix("s")
        if kind not in KINDS:
            self.fail(f"`{value}` is no kind; {did_you_mean(kind, KINDS)}", param, ctx)
        return kind


@click.command("list-plugins")
@click.argument("kind", type=Kind(), required=False)
@json_option
@third_party_option
def list_plugins(kind: str | None, as_json: bool) -> None:
    """List what a recipe can name, by kind, with what offers it; below it the plugins that do not work.

    KIND is model, dataset, transform, objective, adaptation, mitigation, evaluator or merge.
    """
    found = registry()
    entries = found.entries(kind)
    if as_json:
        plugins = [asdict(plugin) for plugin in found.plugins]
        print_json({"schema": 1, "variants": [_as_json(entry) for entry in entries], "plugins": plugins})
        return
    out = console()
    if out.is_terminal:
        for each in KINDS if kind is None else (kind,):
            rows = [_short_row(entry) for entry in entries if entry.kind == each]
            if rows:
                out.print(Text(f"{each}s", style="bold cyan"))
                print_table(out, (), rows, wide=1)
                out.print()
    else:
        rows = [[entry.kind, entry.variant.name, *_row(entry)[2:], entry.variant.summary] for entry in entries]
        print_table(out, (), rows, wide=4)
    if not entries:
        out.print(f"no plugin here offers {f'a {kind}' if kind else 'anything'}")
    for plugin in found.plugins:
        if plugin.status != "ok":
            print_broken(plugin)


def print_broken(plugin: PluginInfo) -> None:
    """Print what is wrong with a plugin and how to mend it."""
    style = "red" if plugin.status == "broken" else "yellow"
    out = console()
    out.print(Text.assemble((plugin.status, style), f"  {plugin.name} ({plugin.distribution} {plugin.version})"))
    out.print(f"    {plugin.reason}")
    if plugin.mend:
        out.print(f"    {plugin.mend}")


def _row(entry: Entry) -> list[str]:
    name = entry.variant.name if entry.status == "ok" else entry.qualified
    return [name, entry.variant.summary, f"{entry.distribution} {entry.version}", entry.status]


def _short_row(entry: Entry) -> list[str]:
    """For a terminal: who offers it is told of third parties alone, and the status where there is one to tell."""
    name, summary, offered, status = _row(entry)
    told = [offered] if entry.distribution != OWN_DISTRIBUTION or status != "ok" else []
    return [name, summary, "  ".join(told + ([status] if status != "ok" else []))]


def _as_json(entry: Entry) -> dict[str, Any]:
    variant = entry.variant
    return {
        "kind": entry.kind, "name": variant.name, "summary": variant.summary,
        "distribution": entry.distribution, "version": entry.version, "plugin": entry.plugin,
        "status": entry.status, "reason": entry.reason,
        "needs": variant.needs, "provides": variant.provides, "paper": variant.paper,
    }  # fmt: skip
