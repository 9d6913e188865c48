"""``ftk merge``: models or adapters on disk become one."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ftk.cli.common import console, json_option, print_json, print_note, print_table, registry, third_party_option
from ftk.errors import Problem, RecipeError, UserError, did_you_mean
from ftk.merging.request import MergeRequest, read_file, read_request, table_of_arguments
from ftk.recipe.overrides import value_of

if TYPE_CHECKING:
    from ftk.merging.checking import MergePlan


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="MODEL... | FILE.toml")
@click.option("--out", metavar="FOLDER", help="Where to write; must not be there, or be empty.")
@click.option("--base", metavar="FOLDER", help="What task vectors start from, and what adapters belong on.")
@click.option("--method", metavar="NAME", help="See ftk list-plugins merge; by default linear.")
@click.option("--weights", metavar="W,W,...", help="How much each model counts; by default 1 each.")
@click.option("--importances", metavar="FILE,FILE,...", help="For each model an importance of every entry.")
@click.option("--dtype", metavar="TYPE", help="float32, float16, bfloat16, or keep.")
@click.option("--adapter-rank", type=int, metavar="N", help="Write an adapter of this rank; of adapters alone.")
@click.option("--seed", type=int, help="Of what a method draws; by default 0.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be written.")
@json_option
@third_party_option
def merge(
    arguments: Sequence[str], weights: str | None, importances: str | None, method: str | None, dry_run: bool,
    as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Merge MODELs, saved in folders as transformers or PEFT saves them, or as FILE.toml says.

    Options of the method stand as options here: `ftk merge a/ b/ --base c/ --method ties --density 0.3 --out merged/`.
    """
    models, of_method = divided(arguments)
    from_file = None
    if len(models) == 1 and models[0].endswith(".toml"):
        from_file = read_file(Path(models[0]))
    table = table_of_arguments(
        models, {key: value for key, value in given.items() if value is not None},
        None if weights is None else [_number(text) for text in weights.split(",")],
        None if importances is None else importances.split(","), method, of_method, from_file,
    )  # fmt: skip
    source = models[0] if from_file is not None else "ftk merge"
    try:
        request = read_request(table, source, registry())
    except RecipeError as error:
        raise RecipeError(source, [_of_the_command(problem) for problem in error.problems]) from error
    plan = _plan(request)
    if dry_run:
        _tell_plan(plan, as_json)
        return
    _make(plan, as_json)


def divided(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Paths, and the options that the command does not know itself: the method's.

    Raises:
        UserError: an option has no value.
    """
    models: list[str] = []
    options: dict[str, Any] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-"):
            models.append(argument)
            continue
        key, equals, text = argument.lstrip("-").partition("=")
        if not equals and not left:
            raise UserError(f"{argument}: has no value", f"write {argument} VALUE")
        options[key.replace("-", "_")] = value_of(text if equals else left.pop(0))
    if not models:
        raise UserError("there is no model to merge", "name folders, or one TOML file")
    return models, options


def _of_the_command(problem: Problem) -> Problem:
    """An option that the method does not know may be one of the command's, misspelt."""
    own = [name for option in click.get_current_context().command.params for name in option.opts]
    place, _, key = problem.path.partition(".")
    near = did_you_mean(f"--{key.replace('_', '-')}", own)
    known = place != "method" or problem.reason != "unknown key" or problem.hint.startswith("did you mean")
    return problem if known or not near.startswith("did you mean") else replace(problem, hint=near)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--weights: {text!r} is no number", "write them with commas: --weights 0.5,0.5") from error


def _plan(request: MergeRequest) -> MergePlan:
    from ftk.merging.checking import plan_merge
    from ftk.parts import MergeMethod
    from ftk.recipe.building import build

    return plan_merge(request, build(request.method, MergeMethod))


def _tell_plan(plan: MergePlan, as_json: bool) -> None:
    from ftk.merging.finishing import entries_of

    entries, merged = entries_of(plan), [weight for weight in plan.weights if not weight.copied]
    size = sum(entry.bytes for entry in entries)
    free = shutil.disk_usage(Path(plan.request.options.out).expanduser().absolute().parent).free
    facts = {
        "weights": len(entries), "merged": len(merged), "copied": len(entries) - len(merged), "bytes": size,
        "free_bytes": free,
    }  # fmt: skip
    if as_json:
        print_json({"schema": 1, **facts, "notes": plan.notes, "merge": plan.request.resolved()})
        return
    out = console()
    rows = [
        ["models", ", ".join(folder.given for folder in plan.folders)],
        ["base", plan.base.given if plan.base else "none"],
        ["method", f"{plan.request.method.variant.name} {_told(plan.request.method.options)}".strip()],
        ["weights", f"{len(merged)} merged, {len(entries) - len(merged)} copied"],
        ["size", f"{_size(size)}, {_size(free)} are free"],
        ["out", plan.request.options.out],
    ]
    if plan.request.options.adapter_rank is not None:
        rows[4] = ["adapter", f"of rank {plan.request.options.adapter_rank}, for {len(merged)} weights"]
    print_table(out, (), rows, wide=1)
    for note in plan.notes:
        print_note(out, note)


def _make(plan: MergePlan, as_json: bool) -> None:
    from ftk.merging.finishing import make_merge

    began, shown = time.monotonic(), sys.stderr.isatty()

    def told(name: str, done: int, total: int) -> None:
        if shown:
            click.echo(f"\r\x1b[K{done / max(1, total):4.0%}  {name:.60}", nl=False, err=True)

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = make_merge(plan, told)
    finally:
        signal.signal(signal.SIGTERM, before)
        if shown:
            click.echo("\r\x1b[K", nl=False, err=True)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if as_json:
        told_of = {"folder": str(result.folder), "bytes": result.bytes, "seconds": round(seconds, 3)}
        print_json({"schema": 1, **told_of, "peak_memory_bytes": peak, "errors": result.errors, "notes": plan.notes})
        return
    out = console()
    for note in plan.notes:
        print_note(out, note)
    out.print(f"{result.folder}: {_size(result.bytes)} in {seconds:.1f} s, peak memory {_size(peak)}")
    if result.errors:
        worst = max(result.errors, key=lambda name: result.errors[name])
        rank, share = plan.request.options.adapter_rank, result.errors[worst]
        out.print(f"rank {rank} leaves out {share:.2%} of a weight's change at most ({worst})")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _told(options: Any) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in options.model_dump(mode="json").items())
