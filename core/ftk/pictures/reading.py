"""What a folder tells of its run, read without torch: also of a run that goes on, or was interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftk.errors import UserError
from ftk.files import read_json
from ftk.report import WEIGHTS
from ftk.report.scores import Scores

Table = dict[str, Any]

POINTS = "points.json"
"""What makes a folder a comparison's; docs/report.md tells what stands in it."""

MOST_STAGES = 10_000
"""No log makes this program count further."""


@dataclass
class StageStory:
    """What is known of one stage.

    Attributes:
        name: the stage's.
        planned: the optimizer steps it would take; 0 before it began.
        steps: what was logged of its training: an event of kind ``step`` by its number.
        evaluations: as ``history`` in ``report.json``.
        facts: its entry in ``report.json``; None while it has not finished.
        weights: its ``weights.json``; None where it has none.
    """

    name: str
    planned: int = 0
    steps: dict[int, Table] = field(default_factory=dict)
    evaluations: dict[int, Table] = field(default_factory=dict)
    facts: Table | None = None
    weights: Table | None = None

    @property
    def length(self) -> int:
        """Steps that it took, or as far as it has come."""
        return int(self.facts["steps"]) if self.facts else max(self.steps, default=0)


@dataclass(frozen=True)
class Story:
    """What a run's folder tells.

    Attributes:
        name: the run's.
        status: ``completed``, ``interrupted``, ``failed`` or ``running``.
        began: seconds since the epoch; None where no event tells it.
        device: where it ran.
        report: ``report.json``; None before the first stage has finished.
        scores: what it holds; None with it.
        stages: those that the run has begun or finished, in order.
        recipe: the recipe's text.
        resolved: the recipe with all defaults.
        environment: ``environment.json``.
        warnings: what the run warned of.
    """

    name: str
    status: str
    began: float | None
    device: str
    report: Table | None
    scores: Scores | None
    stages: tuple[StageStory, ...]
    recipe: str
    resolved: Table
    environment: Table
    warnings: tuple[str, ...]


def read_story(folder: Path) -> Story:
    """Read a run's folder.

    Raises:
        UserError: it is not there, holds no run, or a file of it cannot be read.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: {what}", "name the folder of a run, as runs/ewc_lora")
    if not (folder / "recipe.resolved.json").is_file():
        raise UserError(
            f"{folder}: holds no run of ftk", "name the folder that `ftk run` wrote: recipe.resolved.json is in it"
        )
    resolved = read_json(folder / "recipe.resolved.json")
    report = read_json(folder / "report.json") if (folder / "report.json").exists() else None
    stages: list[StageStory] = []
    told: Table = {"status": "running", "began": None, "device": "", "warnings": []}
    for event in _events(folder / "events.jsonl"):
        _take_in(event, told, stages)
    try:
        scores = None if report is None else Scores.from_json(report)
        for number, facts in enumerate(report["stages"] if report else (), start=1):
            stage = _stage(stages, number, str(facts["name"]))
            stage.facts = facts
            stage.evaluations = {int(entry["step"]): entry for entry in facts.get("history", ())}
            path = folder / "stages" / f"{number}-{stage.name}" / WEIGHTS
            stage.weights = read_json(path) if path.is_file() else None
        status = "completed" if report and report["status"] == "completed" else told["status"]
        name = str(report["name"]) if report else str(resolved["recipe"]["name"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'report.json'}: is not a run's report ({type(error).__name__}: {error})") from error
    recipe = folder / "recipe.toml"
    text = recipe.read_text("utf-8", "replace") if recipe.is_file() else ""
    return Story(
        name=name, status=status, began=told["began"], device=told["device"], report=report, scores=scores,
        stages=tuple(stages), recipe=text, resolved=resolved,
        environment=read_json(path) if (path := folder / "environment.json").is_file() else {},
        warnings=tuple(dict.fromkeys(told["warnings"])),
    )  # fmt: skip


def finite(value: object) -> float | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None  # beyond, an axis has no room


def _events(path: Path) -> Iterator[Table]:
    """The events of a log; a line that a kill cut short is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and isinstance(event.get("kind"), str):
                yield event


def _take_in(event: Mapping[str, Any], told: Table, stages: list[StageStory]) -> None:
    number, step = event.get("stage"), event.get("step")
    match event["kind"]:
        case "run_started":
            told["status"], told["device"] = "running", str(event.get("device", ""))
            told["began"] = told["began"] or finite(event.get("time"))
        case "run_finished":
            told["status"] = str(event.get("status", "running"))
        case "warning":
            told["warnings"].append(str(event.get("text", "")))
        case "stage_started" if isinstance(number, int):
            first = event.get("first_step") or 0
            stage = _stage(stages, number, str(event.get("name", "")))
            stage.planned = int(finite(event.get("steps")) or 0)
            # What was done after the checkpoint that it goes on from is done again.
            stage.steps = {at: kept for at, kept in stage.steps.items() if at <= first}
            stage.evaluations = {at: kept for at, kept in stage.evaluations.items() if at <= first}
        case "step" if isinstance(number, int) and isinstance(step, int):
            _stage(stages, number, "").steps[step] = dict(event)
        case "evaluated" if isinstance(number, int) and isinstance(step, int) and isinstance(event.get("scores"), dict):
            _stage(stages, number, "").evaluations[step] = dict(event)


def _stage(stages: list[StageStory], number: int, name: str) -> StageStory:
    """The story of a stage by its number, from 1."""
    number = min(max(number, 1), MOST_STAGES)
    while len(stages) < number:
        stages.append(StageStory(""))
    stage = stages[number - 1]
    stage.name = stage.name or name
    return stage
