"""What a merge is asked to do: from a TOML file or the command line to checked values; imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftk.errors import Problem, RecipeError, UserError, did_you_mean
from ftk.plugin.options import Options
from ftk.plugin.registry import Registry
from ftk.recipe.complaints import show, validate
from ftk.recipe.levels import Reader
from ftk.recipe.specs import PartSpec

FILE_KEYS = ("models", "method")
"""What stands in the file beside the keys of :class:`MergeOptions`."""


class ModelOptions(Options):
    """One of the models that are merged."""

    path: str = Field(min_length=1, description="A model's folder, a run's, or an adapter's as PEFT saves it.")
    weight: float | None = Field(default=None, description="How much it counts; 1 each where none is given.")
    importances: str | None = Field(
        default=None, description="Safetensors file with an importance of every entry, as the Fisher information."
    )


class MergeOptions(Options):
    """What a merge needs beside its models and its method."""

    out: str = Field(min_length=1, description="The folder to write; it must not be there, or be empty.")
    base: str | None = Field(
        default=None, min_length=1, description="The model that task vectors start from, and that adapters belong on."
    )
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = Field(
        default="keep",
        description="What the merged weights are stored as; `keep`: as the base, or the first model, has it.",
    )
    adapter_rank: int | None = Field(
        default=None, gt=0, description="Write an adapter of this rank in place of a model; of adapters alone."
    )
    seed: int = Field(default=0, ge=0, description="Of what a method draws.")


@dataclass(frozen=True)
class MergeRequest:
    """A merge, as far as it can be checked without looking at the models.

    Attributes:
        models: in the order in which they are named; one at least.
        method: of the kind ``merge``, with its options.
        options: everything else.
        source: what asked, for messages.
    """

    models: tuple[ModelOptions, ...]
    method: PartSpec
    options: MergeOptions
    source: str

    def shares(self) -> tuple[float, ...]:
        """How much each model counts."""
        return tuple(1.0 if model.weight is None else model.weight for model in self.models)

    def resolved(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "models": [model.model_dump(mode="json", exclude_none=True) for model in self.models],
            "method": self.method.resolved(),
            **self.options.model_dump(mode="json"),
        }


def read_file(path: Path) -> dict[str, Any]:
    """The table of a merge's TOML file.

    Raises:
        UserError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = did_you_mean(path.name, [found.name for found in path.parent.glob("*.toml")])
        raise UserError(f"{path}: there is no such file", near) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_request(table: Mapping[str, Any], source: str, registry: Registry) -> MergeRequest:
    """Check a merge's table.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    reader = Reader(registry)
    valid = [*FILE_KEYS, *MergeOptions.model_fields]
    reader.keys(table, "", valid)
    given = {key: value for key, value in table.items() if key in MergeOptions.model_fields}
    options, problems = validate(MergeOptions, given, "")
    reader.problems += [Problem(it.path.removeprefix("."), it.reason, it.hint) for it in problems]
    models = _models(table, reader)
    written = table.get("method", "linear")
    method = reader.part("merge", {"use": written} if isinstance(written, str) else written, "method")
    if reader.problems or options is None or method is None:
        raise RecipeError(source, reader.problems)
    return MergeRequest(models, method, options, source)


def _models(table: Mapping[str, Any], reader: Reader) -> tuple[ModelOptions, ...]:
    tables = table.get("models")
    if not isinstance(tables, list) or not tables:
        what = "is missing" if tables is None else f"must be a list of models, got {show(tables)}"
        reader.add("models", what, 'write models = ["a/", { path = "b/", weight = 0.5 }]')
        return ()
    found = []
    for number, given in enumerate(tables, start=1):
        if not isinstance(given, str | dict):
            reader.add(f"models.{number}", f"must be a path or a table, got {show(given)}")
            continue
        model, problems = validate(
            ModelOptions, {"path": given} if isinstance(given, str) else given, f"models.{number}"
        )
        reader.problems += problems
        found += [] if model is None else [model]
    weights = [model.weight is not None for model in found]
    if any(weights) and not all(weights):
        reader.add("models", "some have a weight and others have none", "give each its own, or none")
    return tuple(found)


def table_of_arguments(
    models: Sequence[str],
    given: Mapping[str, Any],
    weights: Sequence[float] | None,
    importances: Sequence[str] | None,
    method: str | None,
    of_method: Mapping[str, Any],
    from_file: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The table that the command line stands for, over that of a file.

    Args:
        models: paths.
        given: the keys of :class:`MergeOptions` that were given.
        weights: one for each model.
        importances: one file for each model.
        method: its name.
        of_method: options of the method.
        from_file: the table of the file that the command names in place of models.

    Raises:
        UserError: not one weight, or not one file of importances, for each model.
    """
    table = {**(from_file or {}), **given}
    written = table.get("models") if from_file else list(models)
    if written is not None and not (isinstance(written, list) and all(isinstance(it, str | dict) for it in written)):
        weights = importances = written = None  # :func:`read_request` refuses what stands there
    entries = [{"path": entry} if isinstance(entry, str) else entry for entry in written or ()]
    for key, values in (("weight", weights), ("importances", importances)):
        if values is None:
            continue
        if len(values) != len(entries):
            option = "--weights" if key == "weight" else "--importances"
            raise UserError(f"{option}: {len(values)} for {len(entries)} models", "give one for each, with commas")
        entries = [{**entry, key: value} for entry, value in zip(entries, values, strict=True)]
    if entries:
        table["models"] = entries
    before = table.get("method", "linear")
    chosen: Any = {"use": before} if isinstance(before, str) else before
    if method is not None and not (isinstance(chosen, dict) and method == chosen.get("use")):
        chosen = {"use": method}
    table["method"] = {**chosen, **of_method} if isinstance(chosen, dict) else chosen
    return table
