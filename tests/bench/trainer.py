"""The step against that of transformers' ``Trainer`` on equal work: same weights, tensors, optimizer and schedule."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ftk.events import RunEvent
from ftk.running.stage import Stage
from tests.bench.pairs import Measured, divided, synchronize, timed
from tests.bench.stages import Steps

TOLERANCE = 0.02
"""Nats by which the losses may differ: ftk reports the mean over the tokens of a pair, Trainer that over its steps."""


def against_trainer(stage: Stage, events: list[RunEvent], pairs: int, steps: int, folder: Path) -> Measured:
    """Tokens per second of ftk over those of Trainer, in pairs of ``steps`` steps each.

    The two train copies of one model, in turn: whenever Trainer has gone ``steps`` steps, its clock is stopped
    and ftk goes as many. Neither the setting up nor the first pair counts. Both report their loss, rate and
    norm once in each pair, and Trainer is spared what ftk has no counterpart of (a progress bar, a printed log,
    a test of each loss for NaN).

    Args:
        stage: not yet prepared; its training takes ``(pairs + 1) * steps`` steps and logs every ``steps``.
        events: the stage's.
        pairs: how many count.
        steps: of each contender in each pair.
        folder: where Trainer may write.

    Raises:
        AssertionError: the two do not lose the same.
    """
    ctx, options, total = stage.ctx, stage.spec.training, (pairs + 1) * steps
    rival = copy.deepcopy(ctx.model)
    loop = stage.prepare()
    assert (loop.ctx.steps, options.log_every) == (total, steps)
    rows = [item for _, item in loop.batches.mixer.draw(0, total * options.batch_size)]
    turns = Turns(Steps(loop, steps), ctx.device)
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=total, per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate, lr_scheduler_type=options.schedule.use,
        warmup_steps=options.warmup_of(total), weight_decay=options.weight_decay,
        adam_beta1=options.optimizer.beta1, adam_beta2=options.optimizer.beta2, adam_epsilon=options.optimizer.epsilon,
        max_grad_norm=options.max_grad_norm, optim="adamw_torch_fused", bf16=ctx.precision == "bf16",
        use_cpu=ctx.device.type == "cpu", logging_steps=steps, logging_nan_inf_filter=False, report_to=[],
        save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = InOrder(
        model=rival, args=arguments, train_dataset=rows, callbacks=[turns],
        data_collator=lambda items: ctx.objective.collate(items).inputs,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    ours = [event.data["loss"] for event in events if event.kind == "step"]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), atol=TOLERANCE, rtol=0)
    tokens = sum(len(row["input_ids"]) for row in rows[steps * options.batch_size :])
    return Measured(
        divided(turns.trainer, turns.ftk),
        ctx.device,
        {
            "precision": ctx.precision,
            "ftk_tokens_per_second": round(tokens / sum(turns.ftk)),
            "trainer_tokens_per_second": round(tokens / sum(turns.trainer)),
        },
    )


class Turns(TrainerCallback):
    """Lets ftk take its turn whenever Trainer has gone as far, and keeps the seconds of both; not of the first turn."""

    def __init__(self, steps: Steps, device: torch.device) -> None:
        self.steps = steps
        self.device = device
        self.trainer: list[float] = []
        self.ftk: list[float] = []
        self._started: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps.count:
            return
        synchronize(self.device)
        now = time.perf_counter()
        taken = timed(self.steps, self.device)
        if self._started is not None:
            self.trainer.append(now - self._started)
            self.ftk.append(taken)
        self._started = time.perf_counter()


class InOrder(Trainer):
    """A Trainer that takes the rows as they come."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)
