"""Every adaptation with every mitigation under every kind of objective: what runs, stops and goes on; what is refused.

``python -m tests.composition`` goes through all of them, which takes its time, and writes ``docs/composition.md``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file

import ftk
from ftk.errors import RecipeError, UserError
from ftk.events import RunEvent
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.specs import Recipe

REGISTRY = load_registry(third_party=False)
PAGE = Path(__file__).parents[1] / "docs" / "composition.md"

ADAPTATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "head": {},
    "partial": {"blocks": 1},
    "layerwise_lr": {},
    "progressive": {"thawed_by": 0.8},
    "lora": {"rank": 2},
    "adalora": {"rank": 2},
    "dora": {"rank": 2},
    "ia3": {"targets": "all-linear"},
    "peft": {"method": "lokr", "config": {"r": 2}},
    "bottleneck": {"size": 4},
    "prompt": {"tokens": 2},
    "prefix": {"tokens": 2},
}
MITIGATIONS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "ewc": [{"use": "ewc", "samples": 4}],
    "replay": [{"use": "replay", "share": 0.25}],
    "interpolation": [{"use": "interpolation", "alpha": 0.5}],
}
SMALL = {"use": "scratch", "hidden_size": 16, "layers": 2, "heads": 2}
TEXT = {**SMALL, "vocabulary_size": 300, "max_length": 64}
OBJECTIVES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "causal language model": (TEXT, {"use": "causal_lm", "packing": False}, "texts.jsonl"),
    "masked language model": ({**TEXT, "architecture": "bert"}, {"use": "masked_lm"}, "texts.jsonl"),
    "classification": ({**TEXT, "architecture": "bert"}, {"use": "classification"}, "texts.jsonl"),
    "contrastive": ({**TEXT, "architecture": "bert"}, {"use": "contrastive"}, "texts.jsonl"),
    "images": (
        {**SMALL, "architecture": "vit", "config": {"image_size": 8, "patch_size": 4}},
        {"use": "image_classification"},
        "images.parquet",
    ),
}
"""For each kind the model, the objective, and the file that its rows are in."""

STEPS, STOP = 4, 2

HEAD = """# What goes with what

Each adaptation with each mitigation, under each kind of objective; what is retained is rows of the same objective.
✓: a small model is trained so, stopped by a signal, taken up again, and ends in the same weights, to the bit, as
without the stop. A number: it is refused before anything is trained, for the reason of that number below. The page is
written by `python -m tests.composition`, after all of it was tried; the tests hold it against what `ftk check` says,
and try a few that run, other ones each day.
"""


Reasons = tuple[str, ...]
"""Why a combination is refused; empty for one that runs."""


@dataclass(frozen=True)
class Cell:
    """One combination."""

    objective: str
    adaptation: str
    mitigation: str

    def table(self, folder: Path) -> dict[str, Any]:
        """Its recipe, with rows in ``folder``."""
        model, objective, file = OBJECTIVES[self.objective]
        rows = {"use": "files", "path": str(folder / file)}
        return {
            "name": "cell", "model": model, "objective": objective,
            "adaptation": {"use": self.adaptation, **ADAPTATIONS[self.adaptation]},
            "data": {"overlap": "allow", "train": rows, "retain": rows},
            "mitigation": MITIGATIONS[self.mitigation],
            "training": {
                "steps": STEPS, "batch_size": 4, "learning_rate": 1e-2, "log_every": 1, "precision": "fp32",
                "checkpoint_every": 0,
            },
        }  # fmt: skip

    def recipe(self, folder: Path) -> Recipe:
        """The same, checked."""
        return recipe_from_table(self.table(folder), "cell", "", registry=REGISTRY)

    def refusal(self, folder: Path) -> Reasons:
        """Why ``ftk check`` refuses it; nothing where it does not."""
        try:
            self.recipe(folder)
        except RecipeError as error:
            return tuple(dict.fromkeys(problem.reason for problem in error.problems))
        return ()

    def outcome(self, folder: Path) -> Reasons:
        """Nothing where it runs, stops and goes on to the same weights; else why it is refused.

        Raises:
            AssertionError: it ends in other weights after a stop.
        """
        if reasons := self.refusal(folder):
            return reasons
        recipe = self.recipe(folder)
        with tempfile.TemporaryDirectory() as runs:
            try:
                whole = _weights(ftk.run(recipe, output=Path(runs) / "whole"))
            except UserError as error:
                return (error.message.partition(": ")[2] or error.message,)
            try:
                ftk.run(recipe, output=Path(runs) / "cut", observers=[_stop])
            except ftk.Interrupted:
                pass
            else:
                raise AssertionError(f"{self}: it was not stopped")
            resumed = _weights(ftk.run(recipe, output=Path(runs) / "cut"))
        assert whole.keys() == resumed.keys(), f"{self}: other weights after a stop"
        differ = [name for name, weight in whole.items() if not torch.equal(weight, resumed[name])]
        assert not differ, f"{self}: after a stop it ends in other weights: {differ[:3]}"
        return ()


def cells() -> Iterator[Cell]:
    """All combinations, in the order of the page."""
    return (Cell(*names) for names in product(OBJECTIVES, ADAPTATIONS, MITIGATIONS))


def write_rows(folder: Path) -> None:
    """What the recipes read: a dozen labelled texts, and a dozen labelled images."""
    texts = [
        {
            "text": f"{word} number {n} is here", "label": word,
            "anchor": f"which {word} is {n}?", "positive": f"number {n}, an {word}",
        }
        for n in range(6) for word in ("one", "other")
    ]  # fmt: skip
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    rng = np.random.default_rng(0)
    images = [{"image": rng.integers(0, 255, (8, 8)).tolist(), "label": n % 2} for n in range(12)]
    Dataset.from_list(images).to_parquet(str(folder / "images.parquet"))


def page(outcomes: dict[Cell, Reasons]) -> str:
    """``docs/composition.md`` for these outcomes."""
    numbers: dict[str, int] = {}
    lines = [HEAD]
    for objective in OBJECTIVES:
        lines += [f"## {objective.capitalize()}", "", f"| adaptation | {' | '.join(MITIGATIONS)} |"]
        lines.append(f"|{'---|' * (len(MITIGATIONS) + 1)}")
        for adaptation in ADAPTATIONS:
            told = [outcomes[Cell(objective, adaptation, mitigation)] for mitigation in MITIGATIONS]
            marks = [", ".join(str(numbers.setdefault(one, len(numbers) + 1)) for one in each) or "✓" for each in told]
            lines.append(f"| `{adaptation}` | {' | '.join(marks)} |")
        lines.append("")
    lines += ["## Reasons", ""]
    lines += [f"{number}. {reason}" for reason, number in numbers.items()]
    return "\n".join(lines) + "\n"


def read_page() -> dict[Cell, Reasons]:
    """The outcomes that ``docs/composition.md`` tells."""
    text = PAGE.read_text(encoding="utf-8")
    numbered = text.partition("## Reasons\n")[2].strip().split("\n")
    reasons = {line.partition(". ")[0]: line.partition(". ")[2] for line in numbered if line}
    found: dict[Cell, Reasons] = {}
    objective = ""
    for line in text.split("\n"):
        if line.startswith("## "):
            objective = next((name for name in OBJECTIVES if name.capitalize() == line[3:]), "")
        elif line.startswith("| `") and objective:
            adaptation, *marks = [cell.strip() for cell in line.strip("|").split("|")]
            for mitigation, mark in zip(MITIGATIONS, marks, strict=True):
                told = () if mark == "✓" else tuple(reasons[number] for number in mark.split(", "))
                found[Cell(objective, adaptation.strip("`"), mitigation)] = told
    return found


def _weights(result: ftk.RunResult) -> dict[str, torch.Tensor]:
    files = sorted((result.folder / "model").rglob("*.safetensors"))
    return {f"{file.parent.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def _stop(event: RunEvent) -> None:
    if event.kind == "step" and event.data["step"] == STOP:
        signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Go through all combinations and write the page."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder))
        for cell in cells():
            outcomes[cell] = cell.outcome(Path(folder))
            print(
                f"{cell.objective}, {cell.adaptation}, {cell.mitigation}: {'; '.join(outcomes[cell]) or 'runs'}",
                flush=True,
            )
    PAGE.write_text(page(outcomes), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
