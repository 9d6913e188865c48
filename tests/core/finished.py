"""Folders of runs that look finished, made of scores, for what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftk.parts import Metric, Resampling
from ftk.report.scores import REPORT_SCHEMA, Scores

TASKS = ("old", "new")


def hits(seed: int, rows: int = 40, share: float = 0.6) -> np.ndarray:
    """Which rows were answered rightly."""
    return (np.random.default_rng(seed).random(rows) < share).astype(np.float64)


def mean_of(right: np.ndarray, rows: np.ndarray | None = None, name: str = "accuracy", higher: bool = True) -> Metric:
    numbers = np.arange(len(right)) if rows is None else rows
    return Metric(name, float(right.mean()), higher, {}, Resampling(len(right), lambda at: right[at].mean()), numbers)


def write_run(
    folder: Path,
    cells: Mapping[tuple[int, str], Sequence[Metric]],
    *,
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    recipe: Any = None,
    stages: Sequence[Mapping[str, Any]] = (),
    checkpointing: bool = False,
    **changes: Any,
) -> Path:
    """A run whose measurements are ``cells``, by stage and task; its recipe is ``recipe``, whatever that is."""
    scores = Scores(tasks)
    for (after, task), metrics in cells.items():
        scores.record(after, task, metrics)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"seconds": 2.0, "outside_seconds": 1.0, "tokens": 100, "peak_memory_bytes": 2**30,
             "trainable_parameters": 10, "total_parameters": 50}  # fmt: skip
    told = [{**facts, **stage} for stage in stages or [{}]]
    report = {"schema": REPORT_SCHEMA, "status": "completed", **scores.to_json(), "stages": told, **changes}
    training = {"training": {"gradient_checkpointing": checkpointing}}
    resolved = {"seed": seed, "name": folder.name, "what": recipe, "stages": [training] * len(told)}
    for name, value in (
        ("report", report), ("recipe.resolved", {"recipe": resolved}), ("environment", {"device": "CPU, 1 thread"}),
    ):  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    scores.outcomes.write(folder)
    return folder


def two_stages(folder: Path, seed: int, *, kept: float = 0.5, **more: Any) -> Path:
    """A run of two tasks, with 40 rows each: the first learned and partly forgotten, then the second."""
    old, after, new = hits(seed, share=0.9), hits(seed + 100, share=kept), hits(seed + 200, share=0.8)
    cells = {
        (0, "old"): [mean_of(0 * old)], (0, "new"): [mean_of(0 * new)],
        (1, "old"): [mean_of(old)], (1, "new"): [mean_of(0 * new)],
        (2, "old"): [mean_of(after)], (2, "new"): [mean_of(new)],
    }  # fmt: skip
    return write_run(folder, cells, seed=seed, **{"stages": [{}, {}], **more})
