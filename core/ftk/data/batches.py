"""Which rows an optimizer step takes, and how one process cuts its share of them into passes: pure functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from ftk.data.mixing import Drawn, Item, Mixer
from ftk.errors import UserError
from ftk.parts import Batch, Features, Objective, Task, lengths_of
from ftk.parts.views import length_of
from ftk.recipe.training import Training

GROUPED_STEPS = 50
"""Rows are grouped by length among those of so many steps, so that what a step holds stays near to random."""

Pass = tuple[Objective, list[Features], bool]
"""Rows of one forward pass with their objective, and whether they count."""


class Batches:
    """The rows of each optimizer step: a function of seed and step alone, whatever came before.

    Of ``batch_size`` rows, in the mixer's endless stream. With ``batch_tokens`` or ``group_by_length`` each epoch is
    divided by itself: into the fewest steps that keep to the size, and these of about equal size, so that no step is
    left with a few rows.

    Args:
        mixer: the order of the rows.
        training: says what a step holds.
    """

    def __init__(self, mixer: Mixer, training: Training) -> None:
        self.mixer = mixer
        self._tokens = training.batch_tokens
        self._rows = training.batch_size
        self._grouped = training.group_by_length
        self._in_stream = self._tokens is None and not self._grouped
        self._starts = [0]
        self._divided = lru_cache(maxsize=2)(self._divide)

    def count(self, epochs: float) -> int:
        """How many steps these epochs take; a fraction is rounded up to whole steps."""
        if self._in_stream:
            return math.ceil(self.mixer.rows_in(epochs) / self._rows)
        whole = int(epochs)
        start, stop = self._start(whole), self._start(whole + 1) if epochs > whole else 0
        return start + math.ceil((epochs - whole) * max(0, stop - start))

    def rows(self, step: int) -> list[Drawn]:
        """The rows of a step, counted from 0, each with its source."""
        if self._in_stream:
            return self.mixer.draw(step * self._rows, (step + 1) * self._rows)
        while self._starts[-1] <= step:
            self._start(len(self._starts))
        epoch = bisect_right(self._starts, step) - 1
        order, ends = self._divided(epoch)
        number = step - self._starts[epoch]
        chosen = order[ends[number - 1] if number else 0 : ends[number]]
        labels, indices = self.mixer.epoch(epoch)
        return self.mixer.take(labels[chosen], indices[chosen], chosen + self.mixer.epoch_start(epoch))

    def _start(self, epoch: int) -> int:
        """The first step of an epoch."""
        while len(self._starts) <= epoch:
            _, ends = self._divided(len(self._starts) - 1)
            self._starts.append(self._starts[-1] + len(ends))
        return self._starts[epoch]

    def _divide(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of an epoch in the order of its steps, and where in it each step ends."""
        labels, indices = self.mixer.epoch(epoch)
        lengths = np.empty(len(labels), np.int64)
        for label, column in enumerate(self._lengths):
            lengths[labels == label] = column[indices[labels == label]]
        sizes, most = (np.ones_like(lengths), self._rows) if self._tokens is None else (lengths, self._tokens)
        order = np.arange(len(labels))
        if self._grouped:
            window = math.ceil(GROUPED_STEPS * len(order) * most / sizes.sum())
            order = np.lexsort((order, -lengths, order // window))
        ends = shares(sizes[order], most)
        if self._grouped:
            steps = np.split(order, ends[:-1])
            shuffled = [steps[number] for number in self.mixer.random("group", epoch).permutation(len(steps))]
            order, ends = np.concatenate(shuffled), np.cumsum([len(step) for step in shuffled])
        return order, ends

    @cached_property
    def _lengths(self) -> list[np.ndarray]:
        return [lengths_of(source.items) for source in self.mixer.sources]


def shares(sizes: np.ndarray, most: int) -> np.ndarray:
    """Where to cut a row of sizes into the fewest shares that can be of at most ``most`` on average.

    A share ends with the first entry that reaches it, so that it is over by less than that entry.
    """
    total = int(sizes.sum())
    count = -(-total // most)
    ends = np.searchsorted(np.cumsum(sizes), np.arange(1, count + 1) * total / count - 1e-9) + 1
    ends[-1] = len(sizes)
    return np.unique(ends)


def passes(
    drawn: Sequence[Drawn], rows: int, tokens: int | None = None, rank: int = 0, world_size: int = 1
) -> list[Pass]:
    """Cut this process's share of one optimizer step's rows into forward passes.

    Rows of near lengths go together, to save padding; rows of different objectives never do. The result of the
    step does not depend on the cut. Every process makes as many passes as the one that makes most, because they
    exchange gradients together: the last passes of the others hold a row that does not count.

    Args:
        drawn: the rows of the step.
        rows: the most of them in a pass.
        tokens: the most positions in a pass, padding counted, in place of ``rows``; a longer row goes alone.
        rank: this process.
        world_size: how many there are.
    """
    cuts = [_cut(drawn[each::world_size], rows, tokens) for each in range(world_size)]
    own: list[Pass] = [(objective, items, True) for objective, items in cuts[rank]]
    source, shortest = min(drawn, key=lambda row: length_of(row[1]))
    return own + [(source.objective, [shortest], False)] * (max(map(len, cuts)) - len(own))


def as_batch(objective: Objective, items: Sequence[Features]) -> Batch:
    """Rows as a batch that says where they were drawn from."""
    origins = [item.origin for item in items if isinstance(item, Item)]
    return replace(objective.collate(items), origins=origins if len(origins) == len(items) else ())


def by_source(drawn: Sequence[Drawn]) -> dict[str, list[Drawn]]:
    """Rows by where they come from: the source's name, and behind a slash which member of the objective they are of."""
    found: dict[str, list[Drawn]] = {}
    for source, item in drawn:
        name = "/".join(filter(None, (source.name, source.objective.member(item))))
        found.setdefault(name, []).append((source, item))
    return found


def pass_rows(training: Training, world_size: int, longest: Callable[[], int]) -> int:
    """Rows that surely fit into one forward pass: what the recipe says, else the whole of one process's share.

    Args:
        training: what the recipe says.
        world_size: how many processes there are.
        longest: positions of the longest row; asked for where a pass is counted in tokens.

    Raises:
        UserError: there are more processes than rows in a batch.
    """
    if training.batch_tokens is not None:
        return max(1, pass_tokens(training, world_size) // max(1, longest()))
    if training.batch_size < world_size:
        raise UserError(
            f"training.batch_size {training.batch_size} gives {world_size} processes less than a row each",
            "raise it, or use fewer processes",
        )
    share = math.ceil(training.batch_size / world_size)
    return min(share, training.micro_batch_size or share)


def pass_tokens(training: Training, world_size: int) -> int:
    """Positions of one forward pass under ``batch_tokens``."""
    share = math.ceil((training.batch_tokens or 0) / world_size)
    return min(share, training.micro_batch_tokens or share)


def refuse_idle_grouping(training: Training, objective: Objective) -> None:
    """Raise ``UserError`` where ``group_by_length`` could not act, because the rows are packed."""
    packing = objective.packing()
    if training.group_by_length and packing is not None and packing.joined:
        raise UserError(
            "training.group_by_length: the rows are packed, and packed rows are all of about one length",
            "leave it out, or set `packing = false` in the objective",
        )


def refuse_without_lengths(training: Training, task: Task) -> None:
    """Raise ``UserError`` where a step is to be measured in tokens, or rows grouped by them, and rows have none."""
    asked = "batch_tokens" if training.batch_tokens is not None else "group_by_length"
    if (training.batch_tokens is not None or training.group_by_length) and lengths_of(task.train.items).max() == 1:
        raise UserError(
            f"training.{asked}: the rows of `{task.name}` have no lengths, each is one position",
            "leave it out, and say how many rows a step takes: training.batch_size",
        )


def _cut(drawn: Sequence[Drawn], rows: int, tokens: int | None) -> list[tuple[Objective, list[Features]]]:
    groups: dict[int, tuple[Objective, list[Features]]] = {}
    for source, item in drawn:
        groups.setdefault(id(source.objective), (source.objective, []))[1].append(item)
    cut = []
    for objective, items in groups.values():
        if tokens is not None or len(items) > rows:
            items = sorted(items, key=length_of, reverse=True)
        while items:
            size = rows if tokens is None else max(1, tokens // length_of(items[0]))
            cut.append((objective, items[:size]))
            items = items[size:]
    return cut
