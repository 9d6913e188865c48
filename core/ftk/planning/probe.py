"""How long a step takes here: a few steps of a stage with its real shapes, rows and devices, on made-up weights."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ftk.data.batches import Batches
from ftk.planning.held import hold_what_is_remembered
from ftk.planning.memory import go_to_the_end, new_optimizer, take_step
from ftk.planning.plan import Planner, StagePlan
from ftk.planning.widest import cuts_of
from ftk.running.rehearsal import copy_heads

STEPS = 5
"""Most steps that are timed, after one that is not."""

SECONDS = 10.0
"""No further step is begun after so long."""


def timed(planner: Planner, number: int, plan: StagePlan) -> StagePlan:
    """The plan of a stage with the median time of its steps on this machine.

    Weights are random and none is read: how long a product takes does not depend on its values.
    """
    device = planner.job.accelerator.device
    generator = torch.Generator(device).manual_seed(0)

    def make(tensor: Tensor) -> Tensor:
        return _made_up(tensor, device, generator)

    stage = planner.set_up(number, copy_heads(planner.outline(number), make))
    go_to_the_end(stage)
    partly: set[str] = set()
    hold_what_is_remembered(stage, planner.left[number - 1], make, partly)
    optimizer, batches = new_optimizer(stage), Batches(stage.mixer(), stage.spec.training)
    seconds: list[float] = []
    for step in range(min(1 + STEPS, plan.counts["steps"])):
        if sum(seconds) > SECONDS:
            break
        started = time.perf_counter()
        take_step(stage, optimizer, cuts_of(stage, batches, step, 1), partly, lambda part: nullcontext())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return replace(plan, seconds_per_step=statistics.median(seconds[1:] or seconds))


def _made_up(tensor: Tensor, device: torch.device, generator: torch.Generator) -> Tensor:
    made = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
    if tensor.is_floating_point() and tensor.ndim >= 2:
        return made.normal_(0, 0.02, generator=generator)
    return made.fill_(1 if tensor.is_floating_point() or tensor.dtype == torch.bool else 0)
