"""The peak memory that a plan foretells beside the one that the run then has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests import material
from tests.bench.pairs import Goal, Measured
from tests.bench.stages import made_up_texts

WHAT = "peak memory, planned over measured or the other way round, whichever is larger: the worst of five recipes"
GOAL = Goal("≤", 1.15)
SCRATCH = 'use = "scratch"\nhidden_size = 512\nlayers = 8\nheads = 8\nvocabulary_size = 2000'
EWC = '[[mitigation]]\nuse = "ewc"\nsamples = 32'
LORA = 'use = "lora"\nrank = 16'


def recipes(texts: Path) -> Mapping[str, str]:
    """Five recipes by name."""
    smollm2 = material.smollm2_saved()
    pretrained = f'use = "pretrained"\npath = "{smollm2}"'
    wide = f'use = "scratch"\nhidden_size = 256\nlayers = 4\nheads = 4\ntokenizer = "{smollm2}"'
    return {
        "scratch_full": recipe(texts, SCRATCH, 'use = "full"', 256, 'batch_size = 16\nprecision = "fp32"'),
        "scratch_lora_ewc": recipe(texts, SCRATCH, LORA, 256, "batch_size = 16", EWC),
        "smollm2_lora": recipe(texts, pretrained, LORA, 128, "batch_size = 8\nmicro_batch_size = 4"),
        "smollm2_full": recipe(
            texts, pretrained, 'use = "full"', 256, "batch_size = 4\ngradient_checkpointing = true"
        ),
        "large_vocabulary": recipe(texts, wide, 'use = "full"', 256, "batch_size = 16\nloss_chunks = 1"),
    }  # fmt: skip


def recipe(texts: Path, model: str, adaptation: str, longest: int, training: str, more: str = "") -> str:
    """A recipe of three steps over made-up texts."""
    rows = f'{{ use = "files", path = "{texts}" }}'
    return f"""
name = "planned"
[model]
{model}
[objective]
use = "causal_lm"
max_length = {longest}
long_rows = "truncate"
[adaptation]
{adaptation}
[data]
train = {rows}
retain = {rows}
[training]
steps = 3
{training}
{more}
"""


def measure(folder: Path, quick: bool) -> Measured:
    """Plan and run each recipe, each time in a process of its own."""
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in made_up_texts(150, 250)), encoding="utf-8")
    facts: dict[str, Any] = {}
    ratios = []
    for name, text in recipes(texts).items():
        if quick and not name.startswith("scratch"):
            continue
        path = folder / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        (planned,) = ftk("plan", path, "--no-probe")["stages"]
        (run,) = ftk("run", path, "--output", folder / name)["stages"]
        parts = max(planned["memory"].values(), key=lambda parts: sum(parts.values()))
        foretold, measured = sum(parts.values()) - parts.get("device", 0), run["peak_memory_bytes"]
        taken = parts.get("libraries", 0)
        facts[f"{name}_megabytes"] = {
            "planned": foretold // 10**6,
            "measured": measured // 10**6,
            "libraries": taken // 10**6,
        }
        facts[f"{name}_ratio"] = foretold / measured
        facts[f"{name}_ratio_without_libraries"] = (foretold - taken) / (measured - taken)
        ratios.append(max(foretold / measured, measured / foretold))
    return Measured([max(ratios)], torch.device("cuda" if torch.cuda.is_available() else "cpu"), facts)


def ftk(verb: str, *arguments: object) -> dict[str, Any]:
    """What a command tells as JSON."""
    command = [sys.executable, "-m", "ftk", verb, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told
