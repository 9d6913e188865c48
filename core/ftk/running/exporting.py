"""What a stage leaves on disk: its model as one ordinary folder, its card, and the states that go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk.disk.pieces import is_divided
from ftk.parts import ModelSource, State
from ftk.processes.sharding import save_model
from ftk.recipe.specs import Recipe
from ftk.running.folder import RunFolder
from ftk.running.reporting import write_card
from ftk.running.stage import Stage


def export_stage(
    stage: Stage,
    folder: RunFolder,
    processor: Any,
    source: ModelSource,
    states: Mapping[str, State],
    report: dict[str, Any],
    recipe: Recipe,
) -> Any:
    """End a stage's adaptation and turn what it made into the finished stage; every process calls this.

    Args:
        stage: trained, its mitigations finished.
        folder: the run's.
        processor: of the model; saved beside it.
        source: of the model; saves it.
        states: that go on into the next stage.
        report: of the run so far, the stage's facts last.
        recipe: that the card tells of.

    Returns:
        The plain model.
    """
    number, name = stage.ctx.stage, stage.spec.name
    target = folder.aside_path(number, name) / "model"
    is_main = stage.accelerator.is_main_process
    told = None
    if is_main:
        folder.stage_aside(number, name)
        target.mkdir()
        told = stage.adaptation.export(target)
    model = stage.adaptation.merge()
    save_model(model, processor, source, target, keep=is_main)
    if is_main:
        write_card(target, report, recipe, stage.ctx.objective.head.kind, source.how_to_load(), told)
    if is_main or is_divided(states):
        folder.finish_stage(number, name, dict(states), facts=report["stages"][-1])
    if is_main:
        folder.write_json("report.json", report)
    stage.accelerator.wait_for_everyone()
    model.name_or_path = str(folder.model_path(number, name))  # what the next stage's adapter stands on
    return model
