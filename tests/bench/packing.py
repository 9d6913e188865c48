"""Packed against padded instruction rows: tokens of text per second."""

from __future__ import annotations

import json
from pathlib import Path

from tests import material
from tests.bench.pairs import Goal, Measured, alternate
from tests.bench.stages import LORA, Steps, smollm2_model, stage_from

WHAT = (
    "tokens of text per second of packed rows over padded ones; ChatterBot's English rows in blocks of 512, "
    "SmolLM2-135M, LoRA of rank 16 on all linear layers"
)
GOAL = Goal("≥", 2.0)
BLOCK, BLOCKS = 512, 4


def measure(folder: Path, quick: bool) -> Measured:
    """Run it: a step of both holds about as many tokens, in one pass."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in material.chatterbot("english")), encoding="utf-8")
    pairs, lengths = (1 if quick else 5), {}
    contenders = {}
    for packed in (True, False):
        objective = {"use": "instruction", "max_length": BLOCK, "long_rows": "cut_end", "packing": packed}
        mean = lengths[True] if lengths else 0
        size = BLOCKS if packed else max(1, round(BLOCKS * mean))
        stage = stage_from(
            [], objective=objective, data={"train": {"use": "files", "path": str(rows)}}, model=smollm2_model(),
            adaptation=LORA, training={"steps": pairs + 2, "batch_size": size},
        )  # fmt: skip
        lengths[packed] = len(stage.ctx.taught[0].train.encoded) / len(stage.ctx.taught[0].train.items)
        contenders[packed] = Steps(stage.prepare(), 1)
    seconds = alternate(contenders[True], contenders[False], pairs, stage.ctx.device)
    tokens = [tokens_of(contenders[packed], pairs) for packed in (True, False)]
    speeds = [[count / each for count, each in zip(*one, strict=True)] for one in zip(tokens, seconds, strict=True)]
    return Measured(
        [packed / padded for packed, padded in zip(*speeds, strict=True)],
        stage.ctx.device,
        {
            "rows_in_a_block": lengths[True],
            "tokens_per_second_packed": sum(tokens[0]) / sum(seconds[0]),
            "tokens_per_second_padded": sum(tokens[1]) / sum(seconds[1]),
        },
    )


def tokens_of(steps: Steps, pairs: int) -> list[int]:
    """Tokens of text in each of the steps that counted: all but the first."""
    drawn = [steps.loop.batches.rows(step) for step in range(1, pairs + 1)]
    return [sum(len(item["input_ids"]) for _, item in rows) for rows in drawn]
