"""The order of training rows: a pure function of (seed, epoch, position), with mitigations' rows mixed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache

import numpy as np

from ftk.data.shares import Changing, at, highest
from ftk.errors import UserError
from ftk.parts import Context, Course, Features, Objective, Source, Task, derive_seed
from ftk.parts.varying import Varied
from ftk.parts.views import digest_of
from ftk.recipe.checking import MOST_SHARED
from ftk.recipe.naming import member_of
from ftk.recipe.training import Training

Drawn = tuple[Source, Features]
"""A row, and where it was drawn from."""


class Item(Features):
    """The features of a row that was drawn, and its number among the items of its source.

    Attributes:
        origin: the name of the source, and the number.
    """

    origin: tuple[str, int]


class Mixer:
    """Draws rows from the stage's own data and from mitigations' sources, each at its share of the final mix.

    One epoch passes once over the stage's own rows in a fresh order; the other sources' rows are strewn among
    them at random. How many of them an epoch holds is rounded so that the error never adds up over epochs. Each
    source is itself passed through in fresh orders, again and again. Nothing is kept between draws, so that
    resuming at any position costs nothing and is exact.

    Args:
        taught: the stage's own rows, each source with its share of them.
        drawn: how many of them an epoch draws.
        sources: what mitigations mix in, or have gone through beside the mix.
        seed: of every order.
        training: says how long the stage is, for shares that change in it.

    Attributes:
        sources: what is mixed, the stage's own rows first.
        beside: what a step goes through and does not train on.

    Raises:
        UserError: there are no rows, or the shares leave no room for the stage's own.
    """

    def __init__(
        self,
        taught: Sequence[Source],
        drawn: float,
        sources: Sequence[Source],
        seed: int,
        training: Training | None = None,
    ) -> None:
        if not all(source.items for source in taught):
            raise UserError("the training data has no rows")
        for source in sources:
            if not source.items:
                raise UserError(f"{source.name}: there are no rows to mix in")
        self.beside = tuple(source for source in sources if source.reference_rows)
        sources = [source for source in sources if not source.reference_rows]
        shares = [source.share for source in sources]
        if highest(shares) > MOST_SHARED or any(highest([share]) <= 0 for share in shares):
            told = ", ".join(f"{source.name} {highest([source.share]):g}" for source in sources)
            raise UserError(
                f"the shares of the training mix must each be above 0 and their sum at most {MOST_SHARED:g}: {told}",
                "a share is the part of the final mix that a mitigation's rows take; lower it",
            )
        given = [at(share, 0.0) for share in shares]
        shared = sum(given)
        own = [at(source.share, 0.0) * (1 - shared) for source in taught]
        named = [replace(source, share=share) for source, share in zip(taught, own, strict=True)]
        self.sources = (*named, *sources)
        self._per_epoch = [drawn * share / (1 - shared) for share in (*own, *given)]
        self._changing = None
        if any(isinstance(share, Course) for share in shares):
            self._changing = Changing(self._per_epoch[: len(own)], shares, training or Training())
        self._seed = seed
        self._plan = lru_cache(maxsize=2)(self._make_plan)

    @classmethod
    def of_tasks(
        cls, tasks: Sequence[Task], sources: Sequence[Source], seed: int, training: Training | None = None
    ) -> Mixer:
        """Of the rows of all tasks that a stage teaches; of several, each is a source ``train/member``.

        An epoch goes over a task's rows as often as its ``passes`` say, and over all of them in one order.
        """
        drawn = [len(task.train.items) * task.passes for task in tasks]
        total = sum(drawn)
        taught = []
        for task, count in zip(tasks, drawn, strict=True):
            name = f"train/{member}" if (member := member_of(task.name)) else "train"
            taught.append(Source(name, task.train.items, count / total if total else 0.0, task.objective))
        return cls(taught, total, sources, seed, training)

    def epoch_start(self, epoch: int) -> int:
        """The position of an epoch's first row in the endless stream."""
        return sum(self._until(epoch))

    def rows_in(self, epochs: float) -> int:
        """How many rows this many epochs draw, the sources' rows among them."""
        whole = int(epochs)
        start = self.epoch_start(whole)
        if self._changing is not None:
            return int(self._changing.until(round(epochs * self._changing.blocks)).sum())
        return start + round((epochs - whole) * (self.epoch_start(whole + 1) - start))

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """For each position of an epoch: the number of its source, and the number of its row there."""
        return self._plan(number)

    def take(self, labels: np.ndarray, indices: np.ndarray, positions: np.ndarray) -> list[Drawn]:
        """These rows of these sources, varied as their objectives do it at these positions of the endless stream."""
        drawn: list[Drawn] = []
        for label, index, position in zip(labels.tolist(), indices.tolist(), positions.tolist(), strict=True):
            drawn.append((self.sources[label], self._varied(self.sources[label], index, position)))
        return drawn

    def references(self, step: int) -> Iterator[list[Drawn]]:
        """The rows of each source beside the mix that a step, counted from 0, goes through.

        A step goes on where the one before it ended, in fresh orders again and again.
        """
        for source in self.beside:
            first = step * source.reference_rows
            chosen = self._endless(source, first, first + source.reference_rows).tolist()
            yield [(source, self._varied(source, index, place)) for place, index in enumerate(chosen, start=first)]

    def draw(self, start: int, stop: int) -> list[Drawn]:
        """The rows at positions ``start`` to ``stop − 1`` of the endless stream, each with its source."""
        drawn: list[Drawn] = []
        epoch = int(start / sum(self._per_epoch))
        while self.epoch_start(epoch) > start:
            epoch -= 1
        while len(drawn) < stop - start:
            while self.epoch_start(epoch + 1) <= start + len(drawn):
                epoch += 1
            labels, indices = self.epoch(epoch)
            first = start + len(drawn) - self.epoch_start(epoch)
            last = first + stop - start - len(drawn)
            positions = np.arange(first, min(last, len(labels))) + self.epoch_start(epoch)
            drawn += self.take(labels[first:last], indices[first:last], positions)
        return drawn

    def begin(self, ctx: Context) -> None:
        """Let every objective whose rows are drawn make ready what its loss needs beside the model."""
        for objective in dict.fromkeys(self.objectives()):
            objective.begin(ctx.through(objective))

    def objectives(self) -> list[Objective]:
        """Those of all sources, in their order."""
        return [source.objective for source in (*self.sources, *self.beside)]

    def fingerprint(self) -> str:
        """A SHA-256 over every row that training may draw; tells whether the data are those of a checkpoint."""
        told = []
        for source in (*self.sources, *self.beside):
            beside = source.objective.identity()
            share = asdict(source.share) if isinstance(source.share, Course) else source.share
            rows = [source.name, share or source.reference_rows, len(source.items), digest_of(source.items)]
            told.append([*rows, beside] if beside else rows)
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def random(self, *keys: object) -> np.random.Generator:
        """A generator that depends on the seed and ``keys`` alone."""
        return np.random.Generator(np.random.PCG64(derive_seed(self._seed, *keys)))

    def _varied(self, source: Source, index: int, position: int) -> Features:
        """A row as its objective varies it at a position of the endless stream."""
        if isinstance(source.items, Varied):
            item = Item(source.items.drawn(index, self.random("vary", source.name, position)))
        else:
            item = Item(source.items[index])
        item.origin = source.name, index
        return item

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """For each position of an epoch: which source, and which of its rows."""
        firsts, lasts = self._until(epoch), self._until(epoch + 1)
        indices = [
            self._endless(source, first, last) for source, first, last in zip(self.sources, firsts, lasts, strict=True)
        ]
        placed = self._placed(epoch, [last - first for first, last in zip(firsts, lasts, strict=True)])
        ranked = np.empty(len(placed), dtype=np.int64)
        for label, drawn in enumerate(indices):
            ranked[placed == label] = drawn
        return placed, ranked

    def _until(self, epoch: int) -> list[int]:
        """How many rows of each source the epochs before this one have drawn."""
        if self._changing is not None:
            drawn: list[int] = self._changing.until(epoch * self._changing.blocks).tolist()
            return drawn
        return [round(epoch * rows) for rows in self._per_epoch]

    def _placed(self, epoch: int, counts: Sequence[int]) -> np.ndarray:
        """Which source each position of an epoch is of, strewn at random; block by block where shares change."""
        changing = self._changing
        if changing is None:
            return self._strewn(counts, "mix", epoch)
        ends = [changing.until(epoch * changing.blocks + block) for block in range(changing.blocks + 1)]
        blocks = [self._strewn(there, "mix", epoch, block) for block, there in enumerate(np.diff(ends, axis=0))]
        return np.concatenate(blocks)

    def _strewn(self, counts: Sequence[int] | np.ndarray, *keys: object) -> np.ndarray:
        labels = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
        strewn: np.ndarray = labels[self.random(*keys).permutation(len(labels))]
        return strewn

    def _endless(self, source: Source, first: int, last: int) -> np.ndarray:
        """Rows ``first`` to ``last − 1`` of a source that is passed through again and again."""
        size = len(source.items)
        passes = range(first // size, (last - 1) // size + 1) if last > first else range(0)
        orders = [self.random("order", source.name, number).permutation(size) for number in passes]
        if not orders:
            return np.empty(0, dtype=np.int64)
        offset = passes.start * size
        return np.concatenate(orders)[first - offset : last - offset]
