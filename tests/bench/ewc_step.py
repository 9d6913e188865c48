"""What EWC adds to a step."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import torch

from ftk.running.composition import Composition
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from tests.bench.pairs import Goal, Measured, alternate, divided
from tests.bench.stages import LORA, Steps, remembered, smollm2_model, stage_of

WHAT = "time of a step with EWC over without; SmolLM2-135M, LoRA of rank 16 on all linear layers, 4 rows of 128 tokens"
GOAL = Goal("≤", 1.03)
STEPS = 1


def measure(folder: Path, quick: bool) -> Measured:
    """Run it. Both train one and the same model; the Fisher information is made up, of mean 1."""
    pairs = 3 if quick else 9
    training = {"steps": 4 * (pairs + 1) * STEPS, "batch_size": 4}
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
    rare = Ewc(EwcOptions(every=4))
    rare.load_state_dict(fisher)
    rare.begin(stage.ctx)
    spared = Steps(replace(guarded.loop, mitigations=Composition({"ewc": rare})), STEPS)
    with_spared, beside = alternate(spared, plain, pairs, stage.ctx.device)
    return Measured(
        divided(with_ewc, without),
        stage.ctx.device,
        {
            "precision": stage.ctx.precision,
            "guarded_weights": sum(weight.numel() for weight in weights.values()),
            "every_4_ratio": statistics.median(divided(with_spared, beside)),
            "seconds_with": sum(with_ewc) / pairs / STEPS,
            "seconds_without": sum(without) / pairs / STEPS,
        },
    )
