"""What a run says of itself: ``report.json``, the facts of a stage, and the model's card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ftk.plugin.registry import own_version
from ftk.processes.hardware import peak_memory
from ftk.recipe.specs import Recipe
from ftk.report.model_card import model_card
from ftk.report.scores import REPORT_SCHEMA, Scores
from ftk.running.composition import OUTSIDE
from ftk.running.stage import StageResult


def run_report(recipe: Recipe, status: str, scores: Scores, stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of ``report.json``: the scores and the facts of the stages so far."""
    return {
        "schema": REPORT_SCHEMA, "status": status, "name": recipe.name, "recipe_sha256": recipe.sha256,
        "ftk": own_version(), "seed": recipe.seed, **scores.to_json(), "stages": list(stages),
    }  # fmt: skip


def stage_facts(name: str, result: StageResult, device: torch.device) -> dict[str, Any]:
    """What the report tells of one stage that has been trained."""
    progress = result.progress
    return {
        "name": name, "steps": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds, 3),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "outside_seconds": round(result.states["composition"]["seconds"][OUTSIDE], 3),
        "peak_memory_bytes": peak_memory(device), **result.facts,
    }  # fmt: skip


def write_card(
    model: Path, report: dict[str, Any], recipe: Recipe, head: str, how_to_load: str | None, told: str | None
) -> None:
    """Give an exported model its README.md, with what its source says of loading and its adaptation of the export."""
    adapter = "adapter" if (model / "adapter").is_dir() else None
    by_itself = (model / "adapter" / "README.md").is_file()
    of_both = all((model / f"{name}_config.json").is_file() for name in ("tokenizer", "processor"))
    card = model_card(
        report, recipe, head=head, adapter=adapter, by_itself=by_itself, told=told, how_to_load=how_to_load,
        of_both=of_both,
    )  # fmt: skip
    (model / "README.md").write_text(card, encoding="utf-8")
