"""A stream of two tasks that a small model learns one after the other in a few seconds, and forgets the first by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ftk
from tests.system.small import HEAD, written

FACTS = 'use = "world_facts", languages = "en", templates_per_fact = 1, limit = 6'


def stream(mitigations: str = "", adaptation: str = 'use = "full"', steps: int = 120) -> str:
    """A recipe of capitals and then currencies; ``mitigations`` are tables of the second stage."""
    head = HEAD.replace("steps = 9", f"steps = {steps}").replace("log_every = 1", "log_every = 60")
    return f"""{head.replace("checkpoint_every = 3", "checkpoint_every = 0")}
[adaptation]
{adaptation}
[data]
overlap = "allow"
[[evaluator]]
use = "perplexity"
[[stage]]
name = "capitals"
[stage.data]
train = {{ {FACTS}, relations = "capital" }}
test = {{ {FACTS}, relations = "capital" }}
[[stage]]
name = "currencies"
[stage.data]
train = {{ {FACTS}, relations = "currency" }}
test = {{ {FACTS}, relations = "currency" }}
{mitigations}
"""


def run(folder: Path, name: str, text: str) -> tuple[list[list[float]], dict[str, Any]]:
    """The matrix of perplexities, and what the mitigations of the second stage tell."""
    result = ftk.run(written(folder, text, f"{name}.toml"), output=folder / name)
    told: dict[str, Any] = result.report["stages"][1]["mitigations"]
    matrix: list[list[float]] = result.report["matrix"]["perplexity"]
    return matrix, told
