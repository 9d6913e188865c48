"""How long a step waits for its checkpoint: while it is written in the background, and while it is written inline."""

from __future__ import annotations

from pathlib import Path

from ftk.disk.checkpoints import Checkpoints
from ftk.events import RunEvent
from tests.bench.pairs import Goal, Measured, divided, timed
from tests.bench.stages import Steps, smollm2_model, stage_of

WHAT = "seconds that a step waits for its checkpoint, written in the background over inline; SmolLM2-135M, all weights"
GOAL = Goal("≤", 0.25)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it."""
    events: list[RunEvent] = []
    pairs = 2 if quick else 7
    training = {"steps": 2 * pairs + 3, "batch_size": 1, "learning_rate": 1e-6}
    stage = stage_of(
        folder, events, words=(5, 8), longest=16, training=training, adaptation={"use": "full", "start_copy": "none"},
        model=smollm2_model(),
    )  # fmt: skip
    steps = Steps(stage.prepare(), 1)
    checkpoints = Checkpoints(folder / "checkpoints", held=True)
    waits: tuple[list[float], list[float]] = ([], [])

    def save() -> None:
        progress = steps.progress
        checkpoints.save(1, progress.step, stage.states(progress), 1, lambda path: None)

    def save_and_wait() -> None:
        save()
        checkpoints.settle()

    for pair in range(pairs + 1):
        for piece, seconds in zip((save, save_and_wait), waits, strict=True):
            steps()  # a checkpoint of what has not changed would be a link
            taken = timed(piece, stage.ctx.device)
            checkpoints.settle()
            if pair:
                seconds.append(taken)
    size = sum(file.stat().st_size for file in checkpoints.there()[-1].iterdir())
    checkpoints.close()
    facts = {
        "megabytes": size / 1e6, "background_seconds": min(waits[0]), "inline_seconds": min(waits[1]),
    }  # fmt: skip
    return Measured(divided(*waits), stage.ctx.device, facts)
