"""Stages set up as a run sets them up, from recipes over made-up text, and trained some steps at a time."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers.utils.logging import disable_progress_bar

from ftk.events import Events, RunEvent
from ftk.parts import ModelSource, State
from ftk.recipe.building import build
from ftk.recipe.reading import recipe_from_table
from ftk.running.loop import Loop, Progress
from ftk.running.pipeline import Run
from ftk.running.stage import Stage
from tests import material

LORA = {"use": "lora", "rank": 16, "targets": "all-linear"}


def smollm2_model() -> dict[str, Any]:
    """The recipe's ``[model]`` for SmolLM2-135M-Instruct."""
    return {"use": "pretrained", "path": str(material.smollm2_saved())}


def stage_of(folder: Path, events: list[RunEvent], words: tuple[int, int], longest: int, **table: Any) -> Stage:
    """A run's only stage, on the device that a run takes here.

    Args:
        folder: where the rows are written.
        events: to which the stage's events are appended.
        words: of the shortest and of the longest text.
        longest: tokens that a row is cut to.
        table: the recipe, but for its name, objective and data.
    """
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in made_up_texts(*words)), encoding="utf-8")
    rows = {"use": "files", "path": str(path)}
    objective = {"use": "causal_lm", "max_length": longest, "long_rows": "truncate"}
    return stage_from(events, **{"objective": objective, "data": {"train": rows, "retain": rows}, **table})


def stage_from(events: list[RunEvent], **table: Any) -> Stage:
    """The only stage of a recipe without its name; the stage's events are appended to ``events``."""
    disable_progress_bar()
    # Accelerate keeps the precision for the whole process, and a Trainer may have been there before.
    AcceleratorState._reset_state(True)
    recipe = recipe_from_table({"name": "bench", **table}, "bench", "")
    job = Run(recipe, None, Accelerator(), Events([events.append]), lambda: False)
    job.source = build(recipe.model, ModelSource)
    job.read_rows()
    heads = job.load()
    return job.stage(1, heads, job.tasks(heads.processor), {})


def remembered(fisher: State) -> dict[str, State]:
    """What a stage takes up from the one before where EWC has remembered what there is, with this for its state."""
    return {"composition": {"remembered": {"ewc": ["retain"]}, "seconds": {"ewc": 0.0}}, "mitigation.ewc": fisher}


def made_up_texts(shortest: int, longest: int, count: int = 400) -> list[str]:
    """Texts of so many words from a vocabulary of 500."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("aeioulnrst", k=draw.randint(1, 6))) for _ in range(500)]
    return [" ".join(draw.choices(vocabulary, k=draw.randint(shortest, longest))) for _ in range(count)]


@dataclass
class Steps:
    """A loop that goes some steps further each time."""

    loop: Loop
    count: int
    progress: Progress = field(default_factory=Progress)

    def __call__(self) -> None:
        """Take the next ``count`` steps."""
        ctx = replace(self.loop.ctx, steps=self.progress.step + self.count)
        replace(self.loop, ctx=ctx).train(self.progress)
