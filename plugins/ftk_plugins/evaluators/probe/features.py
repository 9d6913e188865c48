"""Features of rows: the hidden states of a model's body, one vector for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftk import RunFailed, UserError
from ftk.parts import Batch, Context, Examples, Task, batches_of_process, gathered, lengths_of
from ftk_plugins.objectives.model_inputs import base_model
from ftk_plugins.objectives.pooling import pooled

Pooling = Literal["mean", "cls", "last"]


def features_of(
    examples: Examples, rows: Sequence[int], model: nn.Module, task: Task, ctx: Context, pooling: Pooling
) -> tuple[Tensor, Tensor]:
    """What the body makes of some rows, and their classes; in every process, in the order of ``rows``.

    Args:
        examples: the rows.
        rows: the indices of those that are wanted.
        model: in ``eval`` mode, under ``no_grad``.
        task: its objective predicts one class of each row.
        ctx: the device, the precision, and this process's share of the rows.
        pooling: how hidden states become one vector.

    Returns:
        ``(rows, dim) float32`` and ``(rows,) int64``, on the CPU.

    Raises:
        UserError: the model does not tell its body from its head, or rows have not one class each.
        RunFailed: a feature is not a finite number.
    """
    body, items = body_of(model, "probe"), [examples.encoded[row] for row in rows]
    own: list[tuple[Tensor, Tensor, Tensor]] = []
    for indices, counts in batches_of_process(lengths_of(items).tolist(), ctx.micro_batch_size, ctx):
        batch = task.objective.collate([items[index] for index in indices]).to(ctx.device)
        with heard(body) as given, ctx.autocast():
            found = task.objective.predict(model, batch, ctx)
        if found.rows is not None or found.references.ndim != 1 or len(found.references) != len(indices):
            raise UserError(
                f"task `{task.name}`: `probe` needs rows of one class each, and these have several or none",
                "leave it out of this task",
            )
        if counts:
            vectors = vectors_of(given, batch, pooling)
            own.append((torch.tensor(indices), vectors.cpu(), found.references.cpu()))
    places, vectors, classes = (torch.cat(parts) for parts in zip(*gathered(own, ctx), strict=True))
    if not torch.isfinite(vectors).all():
        raise RunFailed(
            f"task `{task.name}`: hidden states on {examples.origin} are not finite; the model has diverged"
        )
    order = torch.argsort(places)
    return vectors[order], classes[order]


def body_of(model: nn.Module, name: str) -> nn.Module:
    """The part of a model below its head, for the variant of this name. Raises ``UserError`` where there is none."""
    base = base_model(model)
    body = getattr(base, "base_model", base)
    if body is base or not isinstance(body, nn.Module):
        raise UserError(
            f"`{name}` looks at the body of a model, and a {type(base).__name__} does not tell it from its head",
            "leave it out, or give the model a `base_model` as those of transformers have",
        )
    return body


@contextmanager
def heard(body: nn.Module) -> Iterator[list[Any]]:
    """What the body gives while the model predicts."""
    given: list[Any] = []
    hook = body.register_forward_hook(lambda module, inputs, output: given.append(output))
    try:
        yield given
    finally:
        hook.remove()


def vectors_of(given: Sequence[Any], batch: Batch, pooling: Pooling) -> Tensor:
    """One vector for each row: ``(rows, dim) float32``."""
    if len(given) != 1:
        raise RunFailed(f"the model's body was called {len(given)} times for one prediction")
    first = given[0] if isinstance(given[0], Tensor) else given[0][0]
    states: Tensor = getattr(given[0], "last_hidden_state", first)
    if states.ndim == 4:  # channels over an image
        states = states.flatten(2).transpose(1, 2)
    if states.ndim == 2:
        return states.float()
    mask = batch.inputs.get("attention_mask")
    if mask is None:
        mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    # An adaptation may put virtual tokens before the row.
    return pooled(SimpleNamespace(last_hidden_state=states[:, -mask.shape[1] :]), mask, pooling)
