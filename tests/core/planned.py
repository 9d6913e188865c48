"""The recipe that the tests of planning plan, small enough to count by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHANNELS, LAYERS, WIDE, VOCABULARY = 64, 2, 256, 300


PROJECTIONS = LAYERS * (4 * CHANNELS * CHANNELS + 3 * CHANNELS * WIDE)
"""Weights of the linear layers below: four of attention and three of the feed-forward part in each layer."""


WEIGHTS = PROJECTIONS + VOCABULARY * CHANNELS + (2 * LAYERS + 1) * CHANNELS
"""With the tied embedding and the norms."""


def recipe_table(rows: Path, **changes: Any) -> dict[str, Any]:
    """A stage of full tuning on ten texts of 4 to 40 bytes."""
    data = {"use": "files", "path": str(rows)}
    return {
        "name": "planned",
        "model": {
            "use": "scratch", "hidden_size": CHANNELS, "layers": LAYERS, "heads": 4, "vocabulary_size": VOCABULARY,
        },
        "objective": {"use": "causal_lm", "append_eos": False},
        "adaptation": {"use": "full"},
        "data": {"train": data, "retain": data},
        "training": {"steps": 6, "batch_size": 4, "precision": "fp32"},
        **changes,
    }  # fmt: skip
