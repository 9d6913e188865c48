"""Which rows the Fisher information is estimated on, and the arithmetic in which the model answers for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ftk.parts import Features, Task, attention_by, evaluated, lengths_of

NARROW = (torch.bfloat16, torch.float16)


def draw_rows(task: Task, samples: int, generator: torch.Generator) -> list[Features]:
    """Rows as training cuts them, but not joined; longest first, so that a batch has little padding."""
    chosen = torch.randperm(len(task.train), generator=generator)[:samples].tolist()
    rows = task.train.subset(chosen).pieces  # a long text is several rows
    kept = torch.randperm(len(rows), generator=generator)[:samples].tolist()
    drawn = [rows[index] for index in kept]
    return [drawn[place] for place in np.argsort(-lengths_of(drawn), kind="stable")]


@contextmanager
def exact_arithmetic(model: nn.Module, device: torch.device, widen: bool = True) -> Iterator[None]:
    """``eval`` mode, float32 unless sharded, no parameter asking for a gradient; everything as it was afterwards.

    Flash attention has no float32, and gives way to torch's own.

    Args:
        model: as above.
        device: where it computes.
        widen: whether weights of half precision become float32. A parameter whose type changes loses what
            ``DistributedDataParallel`` hears its gradient by: not while several processes train it.
    """
    attention = {str(getattr(m.config, "_attn_implementation", "")) for m in model.modules() if hasattr(m, "config")}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tensors = [*model.parameters(), *model.buffers()]
    halves = [(t, t.data) for t in tensors if widen and t.dtype in NARROW and not isinstance(t, DTensor)]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        for tensor, data in halves:
            tensor.data = data.float()
        exact = attention_by(model, "sdpa") if any("flash" in each for each in attention) else nullcontext()
        with evaluated(model), exact, torch.autocast(device.type, enabled=False):
            yield
    finally:
        for tensor, data in halves:
            tensor.data = data
        for parameter in trainable:
            parameter.requires_grad_(True)
