"""What each mitigation that acts on the weights adds to a step."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftk.parts import Mitigation
from ftk.running.composition import Composition
from ftk.running.stage import Stage
from tests.bench.pairs import Measured, timed
from tests.bench.stages import LORA, Steps, smollm2_model, stage_of
from tests.core.loops import build

WHAT = "time of a step with synaptic_intelligence over without; SmolLM2-135M, LoRA of rank 16, 4 rows of 128 tokens"
GOAL = None
WHOLE = {
    "l2sp": {}, "synaptic_intelligence": {}, "momentum_filter": {}, "freeze_important": {"by": "magnitude"},
}  # fmt: skip
SMALL = {"use": "scratch", "hidden_size": 384, "layers": 8, "heads": 6, "vocabulary_size": 4000}


def measure(folder: Path, quick: bool) -> Measured:
    """Under LoRA on SmolLM2, and in full tuning of a Llama of 8 layers and 384 channels."""
    pairs = 2 if quick else 7
    facts: dict[str, Any] = {}
    stage = made(folder, pairs, LORA, smollm2_model())
    ratios = ratios_of(stage, "synaptic_intelligence", {}, pairs)
    facts["lora_l2sp_ratio"] = statistics.median(ratios_of(stage, "l2sp", {}, pairs))
    stage = made(folder, pairs, {"use": "full"}, SMALL)
    for name, options in WHOLE.items():
        facts[f"full_{name}_ratio"] = statistics.median(ratios_of(stage, name, options, pairs))
    return Measured(ratios, stage.ctx.device, facts)


def made(folder: Path, pairs: int, adaptation: dict[str, Any], model: dict[str, Any]) -> Stage:
    training = {"steps": 100 * (pairs + 1), "batch_size": 4}
    return stage_of(
        folder, [], words=(150, 250), longest=128, training=training, adaptation=adaptation, model=model
    )  # fmt: skip


def ratios_of(stage: Stage, name: str, options: dict[str, Any], pairs: int) -> list[float]:
    """Steps with the mitigation over steps without, of one and the same model."""
    loop = stage.prepare()
    part: Mitigation = build("mitigation", name, **options)
    own, plain = (Steps(replace(loop, mitigations=Composition(parts)), 1) for parts in ({name: part}, {}))

    ratios = []
    for _ in range(pairs + 1):
        part.begin(loop.ctx)
        with_it = timed(own, stage.ctx.device)
        if (taps := getattr(part, "_taps", None)) is not None:
            taps.remove()  # so that steps without do not keep what it hears
        ratios.append(with_it / timed(plain, stage.ctx.device))
    return ratios[1:]
