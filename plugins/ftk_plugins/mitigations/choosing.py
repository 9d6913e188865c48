"""Which rows of a task a memory keeps: an order of its rows, those to keep first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ftk import UserError
from ftk.parts import Batch, Context, Features, Objective, Task, batches_of_process, evaluated, gathered, lengths_of
from ftk_plugins.evaluators.probe.features import body_of, heard, vectors_of

Prefer = Literal["highest", "lowest", "median"]


def items_of(task: Task, rows: Sequence[int]) -> Sequence[Features]:
    """Some rows of a task as training takes them: of the whole task's encoding, made or not, so that their digest,
    which guards a resume, does not depend on who has looked at the task before."""
    task.train.encoded  # noqa: B018 - made here, if it was not
    return task.train.subset(sorted(rows)).items


def at_random(rows: int, ctx: Context, *keys: str) -> list[int]:
    """So many rows in an order of the recipe's seed, the stage and ``keys``."""
    order: list[int] = torch.randperm(rows, generator=ctx.generator(*keys)).tolist()
    return order


def balanced(rows: Sequence[int], classes: Mapping[int, object]) -> list[int]:
    """Rows in an order of which every beginning has as many of each class as may be; those of a class as they come."""
    seen: dict[object, int] = {}
    turns = []
    for row in rows:
        turns.append(seen.get(classes[row], 0))
        seen[classes[row]] = turns[-1] + 1
    places = {label: place for place, label in enumerate(seen)}
    order = sorted(range(len(rows)), key=lambda index: (turns[index], places[classes[rows[index]]]))
    return [rows[index] for index in order]


def by_loss(losses: np.ndarray, prefer: Prefer) -> np.ndarray:
    """The order of rows by their losses ``(rows,)``: the highest or lowest first, or those nearest to the median."""
    told = {"highest": -losses, "lowest": losses, "median": np.abs(losses - np.median(losses))}[prefer]
    return np.argsort(told, kind="stable")


def herded(features: np.ndarray, count: int) -> list[int]:
    """Rows so that the mean feature of every beginning is as near to the mean of all as one more row can make it.

    Features are scaled to length 1 (Rebuffi et al. 2017, iCaRL, algorithm 4); no row is taken twice.

    Args:
        features: ``(rows, dim)`` floating point.
        count: how many rows are wanted.
    """
    features = features.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    mean, taken = features.mean(0), np.zeros(features.shape[1])
    squares = np.square(features).sum(1)
    left = np.ones(len(features), bool)
    chosen: list[int] = []
    for number in range(1, min(count, len(features)) + 1):
        # |number · mean − taken − feature|², without what is the same for all
        far = np.where(left, squares - 2 * features @ (number * mean - taken), np.inf)
        best = int(far.argmin())
        left[best] = False
        taken += features[best]
        chosen.append(best)
    return chosen


def reservoir(
    slots: Sequence[tuple[str, int]], seen: int, task: str, rows: int, size: int, rng: np.random.Generator
) -> list[tuple[str, int]]:
    """What a reservoir holds when the rows of one more task have gone by (Vitter 1985, algorithm R).

    Args:
        slots: what it held: rows of tasks.
        seen: how many rows had gone by.
        task: the new one's name.
        rows: how many it has; they go by in their order.
        size: the most that the reservoir holds.
        rng: every row that has gone by is in it with the same chance.
    """
    held = list(slots)
    places = rng.integers(0, seen + 1 + np.arange(rows))
    for row, place in enumerate(places.tolist()):
        if len(held) < size:
            held.append((task, row))
        elif place < size:
            held[place] = task, row
    return held


def classes_of(task: Task, rows: Sequence[int], column: str | None, name: str, needed: bool) -> dict[int, object]:
    """The class of each row: what stands in a column, or the one label that the objective has encoded.

    Args:
        task: whose rows.
        rows: their numbers.
        column: of the rows as they were read; None: the objective's label.
        name: the mitigation's.
        needed: whether rows without a class are a mistake; else all are of one.

    Raises:
        UserError: rows have no class.
    """
    if column is not None:
        if column not in task.train.rows.column_names:
            told = ", ".join(task.train.rows.column_names)
            raise UserError(
                f"mitigation {name}: {task.train.origin} has no column `{column}`; it has {told}",
                "mend `class_column`",
            )
        values = task.train.rows.select(list(rows))[column]
        return {row: str(value) for row, value in zip(rows, values, strict=True)}
    if not len(rows):
        return {}
    labels = [task.train.encoded[row].get("labels") for row in rows]
    if task.objective.head.labels and all(label is not None and label.shape == (1,) for label in labels):
        return {row: int(label[0]) for row, label in zip(rows, labels, strict=True) if label is not None}
    if needed:
        raise UserError(
            f"mitigation {name}: the rows of `{task.name}` have not one label each",
            'say which column tells their class: class_column = "topic"',
        )
    return dict.fromkeys(rows, 0)


def losses_of(task: Task, rows: Sequence[int], ctx: Context) -> np.ndarray:
    """The loss of each row per target under the model as it stands, in ``eval`` mode: ``(rows,) float64``."""
    items = _whole(task, rows, ctx)
    own: list[tuple[list[int], list[float]]] = []
    with torch.no_grad(), evaluated(ctx.model):
        for indices, counts in batches_of_process(lengths_of(items).tolist(), ctx.micro_batch_size, ctx):
            found = _losses([items[index] for index in indices], task.objective, ctx)
            if counts:
                own.append((indices, found))
    losses = np.empty(len(rows))
    for indices, found in gathered(own, ctx):
        losses[indices] = found
    return losses


def features_of(task: Task, rows: Sequence[int], ctx: Context, name: str) -> np.ndarray:
    """The mean hidden state of each row in the model's body: ``(rows, dim) float32``.

    Raises:
        UserError: the model does not tell its body from its head.
    """
    items, body = _whole(task, rows, ctx), body_of(ctx.model, name)
    own: list[tuple[list[int], np.ndarray]] = []
    with torch.no_grad(), evaluated(ctx.model):
        for indices, counts in batches_of_process(lengths_of(items).tolist(), ctx.micro_batch_size, ctx):
            batch = task.objective.collate([items[index] for index in indices]).to(ctx.device)
            with heard(body) as given, ctx.autocast():
                task.objective.loss(ctx.model, batch, ctx)
            if counts:
                own.append((indices, _mean_states(given, batch).cpu().numpy()))
    found = gathered(own, ctx)
    features = np.empty((len(rows), found[0][1].shape[1]), np.float32)
    for indices, vectors in found:
        features[indices] = vectors
    return features


def _mean_states(given: list[Any], batch: Batch) -> Tensor:
    """One vector for each row: the mean over what is not padding, of an encoder and decoder over what is read."""
    encoded = getattr(given[0], "encoder_last_hidden_state", None)
    if encoded is not None:
        given = [SimpleNamespace(last_hidden_state=encoded)]
    ids = batch.inputs.get("input_ids")
    if ids is not None and "attention_mask" not in batch.inputs:
        lengths = torch.tensor(batch.lengths or [ids.shape[1]] * len(ids), device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        batch = replace(batch, inputs={**batch.inputs, "attention_mask": mask})
    return vectors_of(given, batch, "mean").float()


def _whole(task: Task, rows: Sequence[int], ctx: Context) -> list[Features]:
    """Rows as the objective collates them, one item each: of a row that it would cut the first window."""
    objective, packing = task.objective, task.objective.packing()
    items = []
    for row in rows:
        item = task.train.encoded[row]
        if packing is not None:
            length = packing.length - packing.added
            item = {name: array[:length] for name, array in item.items()}
        rng = np.random.default_rng(ctx.derived_seed("look", task.name, row))
        items.append(item if type(objective).vary is Objective.vary else objective.vary(item, ctx.processor, rng))
    return items


def _losses(items: Sequence[Features], objective: Objective, ctx: Context) -> list[float]:
    """Of each item; where the objective does not tell the rows of a batch apart, one after the other."""
    batch = objective.collate(items).to(ctx.device)
    with ctx.autocast():
        loss = objective.loss(ctx.model, batch, ctx)
    if "row_nats" in loss.outputs:
        nats: Tensor = loss.outputs["row_nats"] / loss.outputs["row_targets"].clamp(min=1)
        return nats.tolist()
    if len(items) == 1:
        return [float(loss.total) / max(1, loss.count)]
    return [value for item in items for value in _losses([item], objective, ctx)]
