"""Setting stages up before their turn, on the shapes of a model alone, so that what would stop one is told at once."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ftk.errors import FtkError
from ftk.parts import Adaptation, Context
from ftk.parts.heads import Heads
from ftk.recipe.specs import StageSpec
from ftk.running.stage import Stage


def rehearse(stages: Sequence[tuple[StageSpec, Context]], accelerator: Accelerator) -> None:
    """Build each stage's parts and attach its adaptation to a copy of the model of its head, without weights.

    Raises:
        FtkError: what :class:`ftk.running.stage.Stage` raises when it is the stage's turn.
    """
    for spec, ctx in stages:
        with undisturbed_draws():
            _set_up(spec, ctx, accelerator)


def _set_up(spec: StageSpec, ctx: Context, accelerator: Accelerator) -> None:
    try:
        assert ctx.heads is not None
        heads = without_weights(ctx.heads).turned(ctx.objective.head, [task.objective.head for task in ctx.taught])
        stage = Stage(spec, replace(ctx, model=heads.model, heads=heads), accelerator, None, {}, lambda: False)
        for task in stage.ctx.taught:
            task.objective.begin(stage.ctx.through(task.objective))
        if spec.training.warmup_steps or type(stage.adaptation).before_step is not Adaptation.before_step:
            steps = stage.plan()["steps"]  # of which the warm-up must leave some
            stage.adaptation.before_step(replace(stage.ctx, steps=steps))
    except FtkError:
        raise
    except Exception:
        return  # what reads weights as it attaches cannot be rehearsed


def without_weights(heads: Heads) -> Heads:
    """Copies of the models whose parameters and buffers have shapes and types, and hold nothing."""
    return copy_heads(heads, lambda tensor: torch.empty_like(tensor, device="meta"))


def copy_heads(heads: Heads, make: Callable[[Tensor], Tensor]) -> Heads:
    """Copies of the models by :func:`copy_with`, over one body as they are."""
    copies = copy_with(nn.ModuleList(heads.models.values()), make)
    return heads.over(dict(zip(heads.models, copies.children(), strict=True)))


def copy_with(model: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of ``model`` with ``make(tensor)`` in the place of each parameter and buffer; shared ones stay so."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(make(parameter), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = make(buffer)
    return copy.deepcopy(model, memo)


@contextmanager
def undisturbed_draws() -> Iterator[None]:
    """Within it random numbers may be drawn that the rest of the run does not see."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
