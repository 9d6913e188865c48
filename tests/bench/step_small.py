"""The step on a model so small that what surrounds the arithmetic shows."""

from __future__ import annotations

from pathlib import Path

from ftk.events import RunEvent
from tests.bench.pairs import Goal, Measured
from tests.bench.stages import stage_of
from tests.bench.trainer import against_trainer

WHAT = "tokens/s of ftk over Trainer; Llama of 2 layers and 32 channels, all weights, 8 rows of 5 to 32 tokens"
GOAL = Goal("≥", 1.05)
STEPS = 20


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    events: list[RunEvent] = []
    pairs = 5 if quick else 25
    training = {
        "steps": (pairs + 1) * STEPS, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "log_every": STEPS,
    }  # fmt: skip
    stage = stage_of(
        folder, events, words=(2, 15), longest=32, training=training, adaptation={"use": "full"},
        model={"use": "scratch", "hidden_size": 32, "layers": 2, "heads": 4, "vocabulary_size": 512},
    )  # fmt: skip
    return against_trainer(stage, events, pairs, STEPS, folder)
