"""``ftk data``: what a run would see: rows kept and dropped, lengths, the mix, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from ftk.cli.common import (
    PathGiven,
    console,
    json_option,
    print_json,
    print_note,
    recipe_arguments,
    registry,
    third_party_option,
)
from ftk.errors import UserError
from ftk.recipe.reading import load_recipe

if TYPE_CHECKING:
    from ftk.planning.survey import Surveyor

BAR = 40
"""Characters of the longest bar of a histogram."""

WHERE_LEARNED = "»", "«"
"""What stands around learned text where there is no colour."""


@click.command()
@recipe_arguments
@click.argument("task", required=False)
@click.option(
    "--examples", type=click.IntRange(0), default=10, show_default=True, help="How many encoded rows to show."
)
@click.option(
    "--save", type=PathGiven(file_okay=False, path_type=Path), metavar="FOLDER",
    help="Write the final rows of every role as Parquet.",
)  # fmt: skip
@json_option
@third_party_option
def data(
    recipe: str,
    task: str | None,
    settings: Sequence[str],
    without: Sequence[str],
    examples: int,
    save: Path | None,
    as_json: bool,
) -> None:
    """Say what a run of RECIPE would see of its data: of every task, or of TASK alone.

    Rows are read, go through their transforms and are encoded as in a run, and are kept for it. Of the model only its
    tokenizer and configuration are read. Nothing is trained.
    """
    loaded = load_recipe(recipe, overrides=settings, without=without, registry=registry())
    if save is not None and save.exists() and any(save.iterdir()):
        raise UserError(f"--save {save}: the folder is not empty", "name another")
    out = console()
    with out.status("reading data") if out.is_terminal and not as_json else nullcontext():
        from ftk.planning.survey import Surveyor

        surveyor = Surveyor(loaded)
        names = surveyor.tasks if task is None else [task]
        told = [surveyor.task(name, examples) for name in names]
    saved = [] if save is None else _save(surveyor, names, save)
    if as_json:
        print_json({"schema": 1, "name": loaded.name, "tasks": told, "saved": saved})
        return
    for number, one in enumerate(told):
        if number:
            out.print()
        _show(out, one)
    for path in saved:
        out.print(f"saved {path}")


def _save(surveyor: Surveyor, names: Sequence[str], folder: Path) -> list[str]:
    """Write the rows of these tasks, a file for each role and probe; returns the files."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    saved = []
    for name in names:
        rows = surveyor.rows(name)
        found = {**rows.roles, **{f"probe-{probe}": one for probe, one in rows.probes.items()}}
        (folder / name).mkdir(parents=True, exist_ok=True)
        for role, one in found.items():
            path = folder / name / f"{role}.parquet"
            one.rows.to_parquet(str(path))
            saved.append(str(path))
    return saved


def _show(out: Console, told: Mapping[str, Any]) -> None:
    out.print(Text.assemble(("task ", "bold cyan"), (told["task"], "bold cyan"), f"  {told['objective']}"))
    for role, found in [*told["roles"].items(), *told["probes"].items()]:
        _show_role(out, role if role in told["roles"] else f"probe {role}", found)
    for overlap in told["overlaps"]:
        note = f"{overlap['place']}: {overlap['rows']} of {overlap['of']} rows stand in the training data too"
        print_note(out, note)
    mix = told["mix"]
    if len(mix["shares"]) > 1:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in mix["shares"].items())
        out.print(f"  the mix: {shares}; {mix['items_per_epoch']:,} items an epoch")
    if told["examples"]:
        out.print()
        how = "is green" if out.is_terminal else f"stands in {' '.join(WHERE_LEARNED)}"
        out.print(Text(f"  as training sees them; what is learned {how}", style="dim"))
    for example in told["examples"]:
        _show_example(out, example)


def _show_role(out: Console, role: str, found: Mapping[str, Any]) -> None:
    unit = "positions" if found["learned"] is None else "tokens"
    out.print()
    out.print(Text.assemble("  ", (role, "bold"), f"  {found['place']}"))
    _show_origin(out, found, "    ")
    lengths = found["lengths"]
    learned = "" if found["learned"] is None else f", {found['learned']:,} of the rows' tokens learned"
    items = "" if found["items"] == found["rows"] else f" in {found['items']:,} items"
    out.print(f"    {found['rows']:,} rows{items}, {found['tokens']:,} {unit} an epoch{learned}")
    if found["cut"] and found["cut"]["rows"]:
        out.print(f"    max_length cuts {found['cut']['tokens']:,} {unit} off {found['cut']['rows']:,} rows")
    out.print(
        f"    lengths {lengths['least']:,} to {lengths['most']:,}, median {lengths['median']:,.0f}, mean "
        f"{lengths['mean']:,.1f}, 95% up to {lengths['p95']:,.0f}"
    )
    spans = [
        f"{bar['from']:,} to {bar['to']:,}" if bar["to"] > bar["from"] else f"{bar['from']:,}"
        for bar in lengths["histogram"]
    ]
    counts = [bar["rows"] for bar in lengths["histogram"]]
    for span, count in zip(spans, counts, strict=True):
        drawn = "█" * round(BAR * count / max(counts)) or ("▏" if count else "")
        out.print(f"    {span:>{max(map(len, spans))}}  {drawn} {count:,}".rstrip())


def _show_origin(out: Console, found: Mapping[str, Any], indent: str) -> None:
    """What rows are mixed of, and what they went through."""
    for name, part in found.get("parts", {}).items():
        drawn = f"{part['drawn']:,} drawn of its {part['rows']:,} rows"
        if left := part["rows"] - part["distinct"]:
            drawn += f", {left:,} of them never"
        if repeated := part["drawn"] - part["distinct"]:
            drawn += f", {repeated:,} times one that was drawn before"
        out.print(f"{indent}{part['share']:.1%} {name}: {drawn}")
        _show_origin(out, part, f"{indent}  ")
    out.print(f"{indent}{found['read']:,} rows {'mixed' if 'parts' in found else 'read'}")
    for step in found["steps"]:
        out.print(f"{indent}{step['name']}: {step['before']:,} -> {step['after']:,} rows")
        for effect in step["effects"]:
            out.print(f"{indent}  {effect['fate']} {effect['rows']:,}: {effect['reason']}")
            for example in effect["examples"]:
                out.print(Text(f"{indent}    {_one_line(example)}", style="dim"))


def _show_example(out: Console, example: Mapping[str, Any]) -> None:
    line = Text(f"    {example['row']:>4}  ")
    for piece in example["pieces"]:
        text = _one_line(piece["text"])
        if piece["learned"]:
            line.append(text, "green") if out.is_terminal else line.append(text.join(WHERE_LEARNED))
        else:
            line.append(text)
    out.print(line if example["pieces"] else Text(f"    {example['row']:>4}  (not of tokens)", style="dim"))


def _one_line(text: str) -> str:
    return text.replace("\n", "⏎")
