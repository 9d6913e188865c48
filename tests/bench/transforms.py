"""Transforms of texts beside ``datasets``' own way to do the same, and how many rows a second each takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset, disable_caching, disable_progress_bars

from ftk.testing import Subject
from ftk_plugins.transforms.clean.clean import steps
from ftk_plugins.transforms.clean.options import CleanOptions
from tests.bench.made_up import write_texts
from tests.bench.pairs import Goal, Measured, alternate, divided, timed
from tests.bench.peaks import peak_bytes

WHAT = "time of `clean` and `filter` over `datasets.map` and `filter`, batched, with functions that do the same"
GOAL = Goal("≤", 1.2)

CLEANING = steps(CleanOptions())

OTHERS: dict[str, dict[str, Any]] = {
    "deduplicate": {},
    "deduplicate_near": {"method": "near"},
    "filter_gopher": {"rules": ["gopher_quality", "gopher_repetition"]},
    "filter_c4": {"rules": ["c4"]},
    "decontaminate": {},
    "split_long": {},
    "augment": {"columns": ["text"], "copies": 1},
    "template": {"template": "Read this: {{ text }}"},
}
"""Further transforms, each alone, that are timed once."""


def measure(folder: Path, quick: bool) -> Measured:
    """Run it, on rows of 300 words."""
    disable_caching()
    disable_progress_bars()
    device = torch.device("cpu")
    rows = Dataset.from_json(str(write_texts(folder / "rows.jsonl", 2_000_000 if quick else 50_000_000)))
    cleaning, choosing = transform("clean"), transform("filter", min_words=250)

    def ours() -> int:
        return len(choosing.apply(cleaning.apply(rows)))

    def theirs() -> int:
        cleaned = rows.map(lambda batch: {"text": [plain(text) for text in batch["text"]]}, batched=True)
        return len(cleaned.filter(lambda batch: [len(text.split()) >= 250 for text in batch["text"]], batched=True))

    assert ours() == theirs() > 0
    slow, fast = alternate(ours, theirs, 2 if quick else 5, device)
    facts: dict[str, Any] = {"rows": len(rows), "seconds": median(slow)}
    for name, options in OTHERS.items():
        part = transform(name.partition("_")[0] if name != "split_long" else name, **options)
        part.see_tests("made up", tests_of(rows))
        facts[f"{name}_rows_per_second"] = round(len(rows) / timed(lambda part=part: part.apply(rows), device))
    facts["clean_peak_megabytes"] = peak_bytes(lambda: cleaning.apply(rows), device) / 1e6
    facts["text_megabytes"] = rows.data.nbytes / 1e6
    return Measured(divided(slow, fast), device, facts)


def transform(use: str, **options: Any) -> Any:
    """A transform as a recipe names it."""
    return Subject("transform", use, options).build()


def plain(text: str) -> str:
    """What `clean` does to a text by default."""
    for _, step in CLEANING:
        text = step(text)
    return text


def tests_of(rows: Dataset) -> Iterator[str]:
    """Test texts of which the rows share some words: each tenth word is another."""
    for text in rows.select(range(min(1000, len(rows))))["text"]:
        yield " ".join(f"other{n}" if n % 10 == 0 else word for n, word in enumerate(text.split()))
