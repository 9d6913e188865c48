"""What EWC adds to a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ftk.running.composition import Composition
from tests.bench.pairs import Goal, Measured, alternate, divided
from tests.bench.stages import LORA, Steps, remembered, smollm2_model, stage_of

WHAT = "time of a step with EWC over without; SmolLM2-135M, LoRA of rank 16 on all linear layers, 4 rows of 128 tokens"
GOAL = Goal("≤", 1.05)
STEPS = 1


def measure(folder: Path, quick: bool) -> Measured:
    """Run it. Both train one and the same model; the Fisher information is made up, of mean 1."""
    pairs = 3 if quick else 9
    training = {"steps": 2 * (pairs + 1) * STEPS, "batch_size": 4}
    stage = stage_of(
        folder, [], words=(150, 250), longest=128, training=training, adaptation=LORA, model=smollm2_model(),
        mitigation=[{"use": "ewc"}],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    weights = {name: drift.weight for name, drift in stage.adaptation.drift().items()}
    fisher = {f"fisher/{name}": 2 * torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
    stage.carried = remembered(fisher)
    guarded = Steps(stage.prepare(), STEPS)
    plain = Steps(replace(guarded.loop, mitigations=Composition({})), STEPS)
    with_ewc, without = alternate(guarded, plain, pairs, stage.ctx.device)
    return Measured(
        divided(with_ewc, without),
        stage.ctx.device,
        {
            "precision": stage.ctx.precision,
            "guarded_weights": sum(weight.numel() for weight in weights.values()),
            "seconds_with": sum(with_ewc) / pairs / STEPS,
            "seconds_without": sum(without) / pairs / STEPS,
        },
    )
