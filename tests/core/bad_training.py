"""Recipes whose ``[training]`` is wrong: optimizers, schedules, and what cannot act."""

from __future__ import annotations

from tests.core.bad_recipes import Bad, good


def training(*lines: str) -> str:
    """The recipe of one stage with more lines in its ``[training]``."""
    return good(("steps = 10", "\n".join(("steps = 10", *lines))))


BAD_TRAINING = {
    "steps in rows and in tokens": Bad(
        training("batch_size = 8", "batch_tokens = 4096"), ("training|give `batch_size` or `batch_tokens`, not both",)
    ),
    "passes in rows of steps in tokens": Bad(
        training("micro_batch_size = 8", "batch_tokens = 4096"), ("training|there is `micro_batch_tokens`",)
    ),
    "passes in tokens of steps in rows": Bad(
        training("micro_batch_tokens = 4096"), ("training|for rows there is `micro_batch_size`",)
    ),
    "unknown optimizer": Bad(training('optimizer = "adam"'), ("training.optimizer|`adam`|did you mean `adamw`?",)),
    "optimizer of a number": Bad(training("optimizer = 3"), ("training.optimizer|must be a name or a table, got 3",)),
    "unknown option of an optimizer": Bad(
        training('optimizer = { use = "sgd", momentun = 0.9 }'),
        ("training.optimizer.momentun|unknown key|did you mean `momentum`?",),
    ),
    "option of an optimizer out of range": Bad(
        training("optimizer = { beta1 = 1 }"), ("training.optimizer.beta1|must be below 1, got 1",)
    ),
    "text in an optimizer": Bad(
        training('optimizer = { beta1 = "0.9" }'), ("training.optimizer.beta1|must be a number, got '0.9'",)
    ),
    "option of another optimizer": Bad(
        training('optimizer = { use = "sgd", beta1 = 0.9 }'),
        ("training.optimizer.beta1|unknown key|valid here: momentum, nesterov, use",),
    ),
    "nothing to look ahead by": Bad(
        training('optimizer = { use = "sgd", momentum = 0, nesterov = true }'),
        ("training.optimizer|`nesterov` looks ahead by the momentum",),
    ),
    "an optimizer's option where it stood before": Bad(
        training("adam_beta1 = 0.9"), ('training.adam_beta1|unknown key|optimizer = { use = "adamw", beta1 = ... }',)
    ),
    "an option set of an unknown optimizer": Bad(
        training(), ("training.optimizer|did you mean `muon`?",), settings=("training.optimizer=moun",)
    ),
    "unknown schedule": Bad(training('schedule = "cosin"'), ("training.schedule|`cosin`|did you mean `cosine`?",)),
    "unknown option of a schedule": Bad(
        training('schedule = { use = "cosine", flor = 0.1 }'), ("training.schedule.flor|unknown key|`floor`?",)
    ),
    "a floor above the peak": Bad(
        training('schedule = { use = "cosine", floor = 1.5 }'), ("training.schedule.floor|must be at most 1, got 1.5",)
    ),
    "a decay of an unknown shape": Bad(
        training('schedule = { use = "wsd", shape = "sqrt" }'), ("training.schedule.shape|'1-sqrt'|did you mean",)
    ),
    "two warm-ups": Bad(
        training("warmup = 0.1", "warmup_steps = 3"), ("training|give `warmup` or `warmup_steps`, not both",)
    ),
    "a warm-up without an end": Bad(
        training("warmup_steps = 10"), ("training|a warm-up of 10 steps leaves none of 10 at the peak",)
    ),
    "warm-up and decay of more than all": Bad(
        training("warmup = 0.6", 'schedule = { use = "wsd", decay = 0.5 }'),
        ("training|`warmup` of 0.6 and `schedule.decay` of 0.5 are more than all steps",),
    ),
    "flash attention that is not installed": Bad(
        training('attention = "flash_attention_2"'),
        ("training.attention|`flash_attention_2` needs flash_attn, which is not installed|pip install flash-attn",),
    ),
    "flash attention in float32": Bad(
        training('attention = "flash_attention_3"', 'precision = "fp32"'),
        ("training|computes in bf16 or fp16, and `precision` is",),
    ),
    "dropout of all": Bad(training("dropout = 1.0"), ("training.dropout|must be below 1, got 1",)),
    "no noise": Bad(training("neftune_noise = 0"), ("training.neftune_noise|must be above 0, got 0",)),
}
