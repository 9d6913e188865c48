"""The step on a real model under LoRA."""

from __future__ import annotations

from pathlib import Path

from ftk.events import RunEvent
from tests.bench.pairs import Goal, Measured
from tests.bench.stages import LORA, smollm2_model, stage_of
from tests.bench.trainer import against_trainer

WHAT = "tokens/s of ftk over Trainer; SmolLM2-135M, LoRA of rank 16 on all linear layers, 4 rows of 128 tokens"
GOAL = Goal("≥", 1.0)
STEPS = 2


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    events: list[RunEvent] = []
    pairs = 2 if quick else 5
    training = {"steps": (pairs + 1) * STEPS, "batch_size": 4, "log_every": STEPS}
    stage = stage_of(
        folder, events, words=(150, 250), longest=128, training=training, adaptation=LORA, model=smollm2_model()
    )
    return against_trainer(stage, events, pairs, STEPS, folder)
