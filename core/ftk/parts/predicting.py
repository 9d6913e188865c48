"""What a model predicts of rows beside what is right, for every evaluator that compares the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ftk.errors import RunFailed
from ftk.parts.sharing import batches_of_process, gathered, tested
from ftk.parts.views import lengths_of

if TYPE_CHECKING:
    from ftk.parts.context import Context
    from ftk.parts.examples import Task


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model predicts of some rows, and what is right.

    Attributes:
        kind: ``classes``, ``scalars`` or ``embeddings``; each has a capability of its own, as ``class-predictions``.
        values: ``(n, …) float32``. Logits ``(n, classes)`` of classes, numbers ``(n, d)``, or the embeddings
            ``(n, dim)`` of one side.
        references: as many. Of classes ``(n,) int64``, or ``(n, classes)`` 0 and 1 where several may hold; else of
            the shape and type of ``values``: the right numbers, or the embeddings of the other side, of which the
            one at the same place is the match.
        labels: the names of the classes, in the order of the logits.
        identities: ``(n, 2) int64`` of embeddings, numbers of what each side is of, the same for equal texts or
            images: what is a match of a row is one of all rows like it. None: no two are equal.
        rows: ``(n,) int64``, the row of each prediction; None: prediction ``i`` is row ``i``'s.
    """

    kind: Literal["classes", "scalars", "embeddings"]
    values: Tensor
    references: Tensor
    labels: tuple[str, ...] = ()
    identities: Tensor | None = None
    rows: Tensor | None = None


def predictions(task: Task, model: nn.Module, ctx: Context) -> Predictions:
    """What ``model`` predicts of all test rows of ``task``, in the order of the rows, once in each measurement.

    Every process calls this and gets all of them, on the CPU. ``rows`` is always given.

    Args:
        task: its objective predicts; it provides the capability of the kind.
        model: in ``eval`` mode.
        ctx: the device, the precision, and this process's share of the rows.

    Raises:
        UserError: there are no test rows.
        RunFailed: a prediction is not a finite number.
    """
    if ctx.shared is None:
        return _predict(task, model, ctx)
    # The objects themselves are in the key, compared by identity: what is kept alive is not mistaken for another.
    key = ("predictions", model, tested(task), task.objective)
    if key not in ctx.shared:
        ctx.shared[key] = _predict(task, model, ctx)
    found: Predictions = ctx.shared[key]
    return found


def _predict(task: Task, model: nn.Module, ctx: Context) -> Predictions:
    examples, objective = tested(task), task.objective
    items = examples.encoded
    own = []
    for indices, counts in batches_of_process(lengths_of(items).tolist(), ctx.micro_batch_size, ctx):
        batch = objective.collate([items[index] for index in indices]).to(ctx.device)
        with torch.no_grad(), ctx.autocast():
            found = objective.predict(model, batch, ctx)
        if counts:
            own.append(_of_rows(found, torch.tensor(indices)))
    pieces = gathered(own, ctx)
    values, references, rows = (
        torch.cat(parts) for parts in zip(*((each.values, each.references, each.rows) for each in pieces), strict=True)
    )
    if not torch.isfinite(values).all() or not torch.isfinite(references).all():
        raise RunFailed(
            f"task `{task.name}`: what the model predicts of {examples.origin} is not finite; it has diverged, or"
            f" its numbers do not fit {ctx.precision}"
        )
    order = torch.argsort(rows, stable=True)
    alike = [each.identities for each in pieces if each.identities is not None]
    return replace(
        pieces[0], values=values[order], references=references[order], rows=rows[order],
        identities=torch.cat(alike)[order] if alike else None,
    )  # fmt: skip


def _of_rows(found: Predictions, indices: Tensor) -> Predictions:
    """The predictions of a batch on the CPU, numbered by the rows of the task."""
    rows = indices if found.rows is None else indices[found.rows.cpu()]
    references = found.references.cpu()
    references = references.float() if references.is_floating_point() else references
    if not len(found.values) == len(references) == len(rows):
        raise RunFailed(f"{len(found.values)} predictions, {len(references)} references, {len(rows)} rows")
    alike = None if found.identities is None else found.identities.cpu()
    return replace(found, values=found.values.float().cpu(), references=references, rows=rows, identities=alike)
