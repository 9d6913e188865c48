"""Loops of a few steps, as the tests of the step set them up."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from ftk.data.batches import Batches
from ftk.parts import Mitigation
from ftk.plugin.discovery import load_registry
from ftk.recipe.training import Training
from ftk.running.composition import Composition
from ftk.running.loop import Loop
from ftk.running.optimizing import build_schedule
from ftk.testing import toy_context, toy_model, toy_task
from tests.mixers import mixer_of

STEPS, BATCH = 50, 8


def build(kind: str, name: str, **options: Any) -> Any:
    entry = load_registry().find(kind, name)
    from ftk.plugin.variant import import_reference

    return import_reference(entry.variant.build)(entry.options_class()(**options))


def rows(count: int) -> list[dict[str, str]]:
    """Texts of several lengths; the padding of a batch differs from micro-batch to micro-batch."""
    return [{"text": f"{n * 7919 % 1000} and {'x' * (n % 11)} make {n * 31 % 97}"} for n in range(count)]


def make_loop(
    adaptation: str = "full",
    parts: dict[str, Mitigation] | None = None,
    save: Any = lambda progress: None,
    stop: Any = lambda: False,
    events: list | None = None,
    dropout: float = 0.0,
    **training: Any,
) -> Loop:
    size = {} if "batch_tokens" in training else {"batch_size": BATCH}
    options = Training(**{
        "steps": STEPS, **size, "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.1,
        "weight_decay": 0.01, "log_every": 1, "precision": "fp32", **training,
    })  # fmt: skip
    objective = build("objective", "causal_lm", packing=False, max_length=64)
    extra = {"rank": 4, "alpha": 8, "dropout": dropout} if adaptation == "lora" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        part = build("adaptation", adaptation, **extra)
        model = part.attach(toy_model())
    task = toy_task(rows(STEPS * BATCH), objective)
    ctx = toy_context(
        model, objective, part, task, steps=options.steps, events=events,
        micro_batch_size=options.micro_batch_size or BATCH,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(
        part.param_groups(model, options.learning_rate), weight_decay=options.weight_decay, eps=1e-8
    )
    scheduler = build_schedule(options, optimizer, options.steps)
    mixer = mixer_of(task.train.items, objective, [], 0)
    return Loop(
        ctx,
        options,
        Accelerator(cpu=True),
        model,
        Batches(mixer, options),
        Composition(parts or {}),
        optimizer,
        scheduler,
        save,
        lambda: None,
        stop,
    )


def losses(events: list) -> list[float]:
    return [event.data["loss"] for event in events if event.kind == "step"]


def weights(loop: Loop) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in loop.ctx.model.parameters() if p.requires_grad])
