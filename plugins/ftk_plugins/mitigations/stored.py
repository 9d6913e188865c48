"""Predictions of a model on some rows, kept: all logits of labels, the likeliest tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftk.parts import (
    Batch,
    Context,
    Features,
    Head,
    Objective,
    State,
    batches_of_process,
    evaluated,
    gathered,
    lengths_of,
)
from ftk_plugins.mitigations.predicted import Apart, logits_of, of_head, rows_of_targets
from ftk_plugins.objectives.divergence import Divergence, between
from ftk_plugins.objectives.model_inputs import base_model, without_values

PIECE = 256
"""Targets whose logits are there at a time while they are made."""


@dataclass(frozen=True)
class Stored:
    """What a model predicted at every target of some items.

    Of a head with labels, or with no more classes than are kept, the logits are kept as they are. Of a vocabulary the
    log-probabilities of the likeliest tokens and, as one class more, of all others together: what is held against them
    is the divergence between the two distributions so coarsened, which is never more than the whole one.

    Attributes:
        values: ``(targets, classes) float32`` logits, or ``(targets, kept + 1) float16`` log-probabilities, the last
            that of the others.
        ids: the tokens that are kept, ``(targets, kept) int32``; empty where all classes are.
        counts: the targets of each item, ``(items,) int64``; they stand one item after the other.
    """

    values: Tensor
    ids: Tensor
    counts: Tensor

    def lines(self, numbers: Sequence[int], rows: Tensor) -> Tensor:
        """Where in it the targets of a batch stand, ``(targets,) int64``.

        Args:
            numbers: of each row of the batch, which item it is. Of a row that is none of these any number will do:
                what stands at its targets means nothing then.
            rows: of each target of the batch its row, ``(targets,) int64``.
        """
        rows = rows.cpu()
        counts = torch.bincount(rows, minlength=len(numbers))
        first = (self.counts.cumsum(0) - self.counts)[torch.as_tensor(numbers, dtype=torch.long)]
        lines = first[rows] + torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        return lines.clamp(max=len(self.values) - 1)

    def apart(
        self,
        head: Head,
        lines: Tensor,
        temperature: float = 1.0,
        kind: Divergence = "forward_kl",
        known: Sequence[int] | None = None,
    ) -> Apart:
        """Holds logits against what is kept at these lines, made with the same temperature; of ``known`` classes."""

        def apart(logits: Tensor, piece: slice) -> Tensor:
            values = self.values[lines[piece]].to(logits.device)
            if not self.ids.shape[1]:
                return of_head(head, logits, values, temperature, kind, known)
            ids = self.ids[lines[piece]].to(logits.device).long()
            p = torch.log_softmax(values.float(), dim=-1)  # what float16 rounds off must not look like mass
            q = coarse(torch.log_softmax(logits / temperature, dim=-1, dtype=torch.float32), ids)
            return between(q, p, kind) * temperature**2

        return apart

    def squares(self, lines: Tensor) -> Apart:
        """Holds logits of labels against those that are kept: the mean square of what they differ by.

        Of classes that a head has gained since, nothing is kept, and nothing asked.
        """

        def apart(logits: Tensor, piece: slice) -> Tensor:
            values = self.values[lines[piece]].to(logits.device)
            return (logits[:, : values.shape[1]].float() - values).square().mean(1)

        return apart

    def of_items(self, places: Sequence[int]) -> Stored:
        """What is kept of some of the items, in this order."""
        chosen = torch.as_tensor(places, dtype=torch.long)
        rows = torch.repeat_interleave(torch.arange(len(chosen)), self.counts[chosen])
        lines = self.lines(places, rows)
        return Stored(self.values[lines], self.ids[lines], self.counts[chosen])

    def followed_by(self, other: Stored) -> Stored:
        """This, and then what is kept of other items; of labels, those that both are of."""
        classes = min(self.values.shape[1], other.values.shape[1])  # a head may have gained some in between
        values = (self.values[:, :classes], other.values[:, :classes])
        pairs = (values, (self.ids, other.ids), (self.counts, other.counts))
        return Stored(*(torch.cat(pair) for pair in pairs))

    @property
    def bytes(self) -> int:
        """What is held in memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.values, self.ids, self.counts))

    def state(self, name: str) -> State:
        """Under keys that begin with ``name/``."""
        return {f"{name}/values": self.values, f"{name}/ids": self.ids, f"{name}/counts": self.counts}

    @classmethod
    def of_state(cls, state: State, name: str) -> Stored:
        """Take it back. Raises ``ValueError`` where it is not there."""
        parts = [state.get(f"{name}/{part}") for part in ("values", "ids", "counts")]
        found = [part.cpu() for part in parts if isinstance(part, Tensor)]
        if len(found) < len(parts):
            raise ValueError(f"a state has not all predictions of {name}")
        return cls(*found)


def coarse(log_probabilities: Tensor, ids: Tensor) -> Tensor:
    """Those at ``ids (targets, kept)``, and of all others together: ``(targets, kept + 1)``, with their graph."""
    others = log_probabilities.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([log_probabilities.gather(1, ids), others], dim=1)


def predict_all(
    items: Sequence[Features],
    objective: Objective,
    model: nn.Module,
    ctx: Context,
    *,
    top_k: int,
    temperature: float = 1.0,
    collate: Callable[[Sequence[Features]], Batch] | None = None,
) -> Stored:
    """What ``model`` predicts of all items, in ``eval`` mode; in every process, on the CPU.

    Args:
        items: what is predicted of; each time they are read they must be the same.
        objective: whose targets and head are asked.
        model: of the objective's head.
        ctx: the device, the precision, and this process's share.
        top_k: tokens that are kept of a vocabulary.
        temperature: divides its logits before the softmax.
        collate: makes a batch of items, as the objective reads it; by default the objective does.
    """
    collate = collate or objective.collate
    if without_values(base_model(model)):
        return _outline(items, objective, model, top_k, collate)
    own: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with torch.no_grad(), evaluated(model):
        for indices, counts in batches_of_process(lengths_of(items).tolist(), ctx.micro_batch_size, ctx):
            batch = collate([items[index] for index in indices]).to(ctx.device)
            rows = rows_of_targets(objective, batch)
            taught = logits_of(objective, model, batch, ctx)
            pieces = []
            for start in range(0, len(rows), PIECE):
                with ctx.autocast():
                    logits = taught(slice(start, start + PIECE))
                pieces.append(_narrowed(logits.float(), objective.head, top_k, temperature))
            if counts and pieces:
                values, ids = (torch.cat(parts).cpu() for parts in zip(*pieces, strict=True))
                own.append((torch.tensor(indices), torch.bincount(rows.cpu(), minlength=len(indices)), values, ids))
    found = gathered(own, ctx)
    numbers, counted, values, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = torch.argsort(torch.repeat_interleave(numbers, counted), stable=True)
    return Stored(values[order], ids[order], counted[torch.argsort(numbers)])


def _keeps_all(head: Head, classes: int, top_k: int) -> bool:
    return bool(head.labels) or classes <= top_k


def _narrowed(logits: Tensor, head: Head, top_k: int, temperature: float) -> tuple[Tensor, Tensor]:
    if _keeps_all(head, logits.shape[1], top_k):
        return logits, torch.empty((len(logits), 0), dtype=torch.int32)
    told = torch.log_softmax(logits / temperature, dim=-1)
    ids = told.topk(top_k, dim=1).indices
    return coarse(told, ids).half(), ids.int()


def _outline(
    items: Sequence[Features],
    objective: Objective,
    model: nn.Module,
    top_k: int,
    collate: Callable[[Sequence[Features]], Batch],
) -> Stored:
    """As large as what would be kept, for a plan."""
    counts = torch.tensor([len(rows_of_targets(objective, collate([item]))) for item in items])
    layer = base_model(model).get_output_embeddings() if not objective.head.labels else None
    classes = len(objective.head.labels) or len(getattr(layer, "weight", ())) or top_k
    targets = int(counts.sum())
    if _keeps_all(objective.head, classes, top_k):
        return Stored(torch.zeros(targets, classes), torch.zeros((targets, 0), dtype=torch.int32), counts)
    ids = torch.zeros((targets, top_k), dtype=torch.int32)
    return Stored(torch.zeros((targets, top_k + 1), dtype=torch.float16), ids, counts)
