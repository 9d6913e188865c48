"""Reads finished runs for comparisons; imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ftk.errors import UserError, did_you_mean
from ftk.files import read_json
from ftk.report.outcomes import FILE, Outcomes
from ftk.report.scores import REPORT_SCHEMA, Scores

ABLATION = "ablation.json"
"""In the folder of an ablation."""
SWEEP = "sweep.json"
"""In the folder of a sweep."""

SECONDS = ("seconds", "outside_seconds")
"""Of a stage: its steps, and what mitigations do before and after them."""


@dataclass(frozen=True)
class FinishedRun:
    """One run that has completed.

    Attributes:
        path: its folder.
        report: its ``report.json``.
        recipe: its recipe with every default filled in.
        device: what it ran on, in words.
        scores: every measurement, with the rows that were measured.
    """

    path: Path
    report: Mapping[str, Any]
    recipe: Mapping[str, Any]
    device: str
    scores: Scores

    @property
    def seed(self) -> int:
        """Of the recipe."""
        return int(self.recipe["seed"])

    @cached_property
    def recipe_key(self) -> str:
        """The same for runs that differ in their seed and name alone."""
        rest = {key: value for key, value in self.recipe.items() if key not in ("seed", "name")}
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()

    def cost(self) -> dict[str, float]:
        """``seconds`` of training, ``tokens``, ``flops`` (an estimate) and ``memory_bytes``."""
        stages, told = self.report["stages"], self.recipe["stages"]
        return {
            "seconds": sum(float(stage.get(key, 0.0)) for stage in stages for key in SECONDS),
            "tokens": sum(stage["tokens"] for stage in stages),
            "flops": sum(
                _flops(stage, bool(its["training"].get("gradient_checkpointing")))
                for stage, its in zip(stages, told, strict=True)
            ),
            "memory_bytes": max((stage["peak_memory_bytes"] for stage in stages), default=0),
        }


def _flops(stage: Mapping[str, Any], recomputed: bool) -> float:
    """Of a stage: 2 for each parameter and token in the forward pass, as many for the gradients of activations and for
    those of the trained parameters (Kaplan et al. 2020: 6 in all), and a second forward pass where it is recomputed.
    """
    total, trained = stage["total_parameters"], stage["trainable_parameters"]
    return float(stage["tokens"] * ((6 if recomputed else 4) * total + 2 * trained))


def read_run(path: Path) -> FinishedRun:
    """Read one run.

    Raises:
        UserError: there is none, it has not completed, or a file of it is damaged or of another ftk.
    """
    if not path.is_dir():
        siblings = [found.name for found in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings) if len(siblings) < 1000 else ""
        raise UserError(f"{path}: there is no such folder", near)
    if not (path / "recipe.resolved.json").is_file():
        inside = sorted({found.parent for found in path.glob("*/**/report.json") if "stages" not in found.parts})
        hint = f"runs in it: {', '.join(map(str, inside[:5]))}" if inside else "name the folder that `ftk run` wrote"
        raise UserError(f"{path}: is no run's folder", hint)
    if not (path / "report.json").is_file():
        raise UserError(f"{path}: the run has not finished its first stage", "go on with it: `ftk run` and its recipe")
    report = read_json(path / "report.json")
    schema, status = report.get("schema"), report.get("status")
    if schema != REPORT_SCHEMA:
        hint = f"this ftk reads schema {REPORT_SCHEMA}; run the recipe again"
        raise UserError(f"{path / 'report.json'}: is of schema {str(schema)[:20]}", hint)
    if status != "completed":
        raise UserError(
            f"{path}: the run has not completed ({str(status)[:20]})", "go on with it: `ftk run`, its recipe"
        )
    recipe = read_json(path / "recipe.resolved.json").get("recipe")
    environment = read_json(path / "environment.json")
    try:
        scores = Scores.from_json(report)
        made = FinishedRun(path, report, recipe, str(environment.get("device", "")), scores)  # type: ignore[arg-type]
        made.cost(), made.seed, made.recipe_key
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its report or its recipe is damaged ({type(error).__name__}: {error})") from error
    try:
        scores.outcomes = Outcomes.read(path)
    except FileNotFoundError:
        raise UserError(
            f"{path / FILE}: is missing, so nothing tells which rows were measured",
            "a run of an earlier ftk has none: run the recipe again",
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path / FILE}: cannot be read: {error}", "run the recipe again") from error
    return made


def ablated(path: Path) -> dict[Path, str]:
    """The completed runs of an ablation's folder, each with the name of its variant; none where it is another folder.

    Raises:
        UserError: its list of runs is damaged, or none of them has completed.
    """
    if not (path / ABLATION).is_file():
        return {}
    try:
        found = {
            path / str(run["variant"]) / f"seed-{run['seed']}": str(run["variant"])
            for run in read_json(path / ABLATION).get("runs", [])
            if run["status"] == "completed"
        }
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path / ABLATION}: is damaged ({type(error).__name__}: {error})", "run `ftk ablate` again"
        ) from error
    if not found:
        raise UserError(f"{path}: is an ablation that has not ended", "go on with it: `ftk ablate` and its recipe")
    return found


def read_runs(paths: Iterable[Path]) -> list[FinishedRun]:
    """Read several runs, each once.

    Raises:
        UserError: as :func:`read_run`, for all that are wrong at once.
    """
    runs: list[FinishedRun] = []
    wrong: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            runs.append(read_run(path))
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))
    return runs
