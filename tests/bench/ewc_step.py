"""What EWC adds to a step, with the diagonal of the Fisher information under LoRA."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ftk.running.composition import Composition
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from ftk_plugins.mitigations.ewc.sums import sums_of
from tests.bench.pairs import Goal, Measured, alternate, divided
from tests.bench.stages import LORA, Steps, remembered, smollm2_model, stage_of

WHAT = "time of a step with EWC over without; SmolLM2-135M, LoRA of rank 16 on all linear layers, 4 rows of 128 tokens"
GOAL = Goal("≤", 1.03)


def measure(folder: Path, quick: bool) -> Measured:
    """Run it in the precision that a run takes here, and in float32 where that is another."""
    return in_precisions(folder, 3 if quick else 9, LORA, {})


def in_precisions(folder: Path, pairs: int, adaptation: dict[str, Any], options: dict[str, Any]) -> Measured:
    """With these options of EWC; what ``every = 4`` spares is measured for the diagonal alone."""
    device, ratios, facts = _in_precision("auto", folder, pairs, adaptation, options)
    if facts["precision"] != "fp32":
        _, wide, more = _in_precision("fp32", folder, pairs, adaptation, options)
        facts |= {"fp32_ratio": statistics.median(wide), **{f"fp32_{name}": value for name, value in more.items()}}
        del facts["fp32_precision"], facts["fp32_guarded_weights"], facts["fp32_fisher_bytes"]
    return Measured(ratios, device, facts)


def _in_precision(
    precision: str, folder: Path, pairs: int, adaptation: dict[str, Any], options: dict[str, Any]
) -> tuple[torch.device, list[float], dict[str, Any]]:
    """Both train one and the same model; the Fisher information is made up."""
    training = {"steps": 4 * (pairs + 1), "batch_size": 4, "precision": precision}
    stage = stage_of(
        folder, [], words=(150, 250), longest=128, training=training, adaptation=adaptation, model=smollm2_model(),
        mitigation=[{"use": "ewc", **options}],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    weights = {name: drift.weight for name, drift in stage.adaptation.drift().items()}
    sums = sums_of(stage.ctx.model, weights, options.get("fisher", "diagonal"))
    fisher = {
        f"fisher/{name}{suffix}": 2 * torch.rand(part.shape, generator=generator)
        for name, each in sums.items()
        for suffix, part in each.mean(1).items()
    }
    del sums
    stage.carried = remembered(fisher)
    guarded = Steps(stage.prepare(), 1)
    plain = Steps(replace(guarded.loop, mitigations=Composition({})), 1)
    with_ewc, without = alternate(guarded, plain, pairs, stage.ctx.device)
    own = guarded.loop.mitigations.clock.seconds()["ewc"] / (pairs + 1)
    step = statistics.median(without)
    facts = {
        "precision": stage.ctx.precision,
        "guarded_weights": sum(weight.numel() for weight in weights.values()),
        "fisher_bytes": sum(part.numel() * part.element_size() for part in fisher.values()),
        "seconds_with": statistics.median(with_ewc),
        "seconds_without": step,
        "seconds_of_ewc": own,
        "one_plus_own_share": 1 + own / step,
    }
    if not options:
        rare = Ewc(EwcOptions(every=4))
        rare.load_state_dict(fisher)
        rare.begin(stage.ctx)
        spared = Steps(replace(guarded.loop, mitigations=Composition({"ewc": rare})), 1)
        facts["every_4_ratio"] = statistics.median(divided(*alternate(spared, plain, pairs, stage.ctx.device)))
    return stage.ctx.device, divided(with_ewc, without), facts
