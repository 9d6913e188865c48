"""Classes that come with the stages: one head has all, and those not seen yet count neither in loss nor prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ftk import UserError
from ftk.parts import Objective, Task
from ftk_plugins.objectives.labels import Labels

UNSEEN = -1e4
"""The logit of a class that no stage has taught yet: no other loses to it, its probability is 0, and it is finite."""


def taught_by(rows: Any, column: str, labels: Labels) -> tuple[str, ...]:
    """The labels that training rows have, in the order of the head."""
    found = {labels.index(value) for value in rows[column] if value is not None}
    return tuple(name for index, name in enumerate(labels.names) if index in found)


def known_outputs(objective: Any, tasks: Iterable[Task]) -> tuple[int, ...] | None:
    """The outputs of a head that some tasks have taught; None: all, also where none of these tasks is of the head.

    Args:
        objective: whose head it is; its options say whether its classes come with the stages.
        tasks: any, of which those with the same head count.
    """
    if not objective.options.incremental:
        return None
    peers: list[Any] = [task.objective for task in tasks if _is_peer(task.objective, objective)]
    names = {name for peer in peers for name in peer.options.taught or peer.labels.names}
    return tuple(index for index, name in enumerate(objective.labels.names) if name in names) or None


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    known: Sequence[int] | None,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    reduction: str = "sum",
) -> Tensor:
    """Cross entropy over the known classes alone; the logits of others have no gradient.

    Args:
        logits: ``(rows, classes) float32``.
        labels: ``(rows,) int64``.
        known: the numbers of the known classes; None: all.
        weights: ``(classes,) float32``, of the classes.
        smoothing: the share of each target that is spread over the known classes.
        reduction: as torch's.

    Raises:
        UserError: a row is of a class that is not known.
    """
    if known is not None:
        columns = torch.tensor(known, device=logits.device)
        places = torch.full((logits.shape[1],), -1, device=logits.device)
        places[columns] = torch.arange(len(known), device=logits.device)
        labels, logits = places[labels], logits[:, columns]
        weights = None if weights is None else weights[columns]
        if (labels < 0).any():
            raise UserError(
                "a row has a label that its stage does not teach, nor any before",
                "the objective's `taught` leaves it out, or rows of a later stage are trained on",
            )
    return F.cross_entropy(logits, labels, weights, reduction=reduction, label_smoothing=smoothing)


def predicted(logits: Tensor, known: Sequence[int] | None) -> Tensor:
    """Logits ``(rows, classes)`` of which none but a known class can be the largest."""
    if known is None:
        return logits
    kept = torch.full_like(logits, UNSEEN)
    kept[:, list(known)] = logits[:, list(known)]
    return kept


def _is_peer(one: Objective, other: Objective) -> bool:
    return getattr(getattr(one, "options", None), "incremental", False) and one.head == other.head
