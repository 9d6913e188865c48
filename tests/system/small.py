"""Recipes that run in about a second, and what tests compare of two runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

HEAD = """
name = "small"
seed = 3
[model]
use = "scratch"
hidden_size = 32
layers = 1
heads = 2
vocabulary_size = 300
[objective]
use = "instruction"
template = "{instruction} "
[training]
steps = 9
batch_size = 4
learning_rate = 3e-3
checkpoint_every = 3
log_every = 1
precision = "fp32"
"""

FACTS = 'use = "world_facts", languages = "en", templates_per_fact = 1'

ONE_STAGE = f"""{HEAD}
[adaptation]
use = "full"
[data]
overlap = "allow"
train = {{ {FACTS}, relations = "capital", limit = 6 }}
"""
"""A recipe without mitigations and evaluators."""

PIPELINE = f"""{HEAD}
[data]
retain = {{ {FACTS}, relations = "iso_code", limit = 6 }}
retain_test = {{ {FACTS}, relations = "iso_code", limit = 3 }}
overlap = "allow"
[[mitigation]]
use = "ewc"
samples = 6
[[mitigation]]
use = "replay"
share = 0.25
[[evaluator]]
use = "keyword_accuracy"
max_new_tokens = 3
[[evaluator]]
use = "perplexity"
[[stage]]
name = "capitals"
adaptation = {{ use = "full" }}
[stage.data]
train = {{ {FACTS}, relations = "capital", limit = 6 }}
test = {{ {FACTS}, relations = "capital", limit = 3 }}
[[stage]]
name = "currencies"
adaptation = {{ use = "lora", rank = 4, dropout = 0.1 }}
[stage.data]
train = {{ {FACTS}, relations = "currency", limit = 6 }}
test = {{ {FACTS}, relations = "currency", limit = 3 }}
"""
"""A retained task and two stages, both under EWC and replay; in the second, LoRA with dropout."""


def written(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    """The recipe as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def weights(run: Path) -> dict[str, str]:
    """The SHA-256 of every file of weights that a run leaves, its stages' too."""
    files = [*run.glob("model/**/*.safetensors"), *run.glob("stages/*/model/**/*.safetensors")]
    assert files
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def report_of(run: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return report


def untimed(report: Any) -> Any:
    """A report without what differs between two equal runs: times and memory."""
    if isinstance(report, dict):
        measured = {"seconds", "outside_seconds", "tokens_per_second", "peak_memory_bytes"}
        return {key: untimed(value) for key, value in report.items() if key not in measured}
    return [untimed(value) for value in report] if isinstance(report, list) else report


def events_of(run: Path, kind: str = "") -> list[dict[str, Any]]:
    """What the run told, of one kind or of all."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [event for event in events if kind in ("", event["kind"])]
