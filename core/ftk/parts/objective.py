"""How a row becomes a batch, and a batch a loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk.parts.model import Head
from ftk.parts.packing import Packing
from ftk.parts.part import Features, Part, Row

if TYPE_CHECKING:
    from datasets import Dataset

    from ftk.parts.context import Context
    from ftk.parts.examples import Task
    from ftk.parts.predicting import Predictions


@dataclass(frozen=True, slots=True)
class Batch:
    """A collated micro-batch.

    Attributes:
        inputs: what the objective's loss reads, first dimension the rows.
        count: how many targets (tokens or rows) its loss sums over.
        tokens: how many input positions are not padding; for throughput.
        lengths: of each row, how many positions from the left are not padding; None: all.
        origins: in training, of each row the name of the source that it was drawn from (``train``, or
            ``mitigation/source``) and its number among the source's items; empty where nobody knows.
    """

    inputs: dict[str, Tensor]
    count: int
    tokens: int
    lengths: Sequence[int] | None = None
    origins: Sequence[tuple[str, int]] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on ``device``."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=moved)


@dataclass(frozen=True, slots=True)
class Loss:
    """A SUM of losses and what it is a sum over; the core divides by the count of the whole optimizer step.

    Attributes:
        total: scalar float32 with its graph, in nats.
        count: the number of targets it sums over, the same as the batch's.
        outputs: what else the model gave, for penalties that need it: ``logits`` and what the objective documents;
            what is large may be made when it is read.
    """

    total: Tensor
    count: int
    outputs: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Part):
    """How a row becomes a batch, and a batch a loss."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """The head it needs on the model."""

    def completed(self, rows: Dataset) -> Mapping[str, Any]:
        """Values of options that the recipe leaves to the training rows, as the names of classes; empty: none.

        The core asks once, and builds the task's objective anew with these options before it encodes a row or asks
        for the head.

        Raises:
            UserError: the rows do not tell.
        """
        return {}

    def identity(self) -> str | None:
        """What its loss depends on beside options and rows, as a hash of files that it reads; None: nothing known.

        A run is not resumed where it has changed.

        Raises:
            UserError: there is no such file.
        """
        return None

    def begin(self, ctx: Context) -> None:
        """Make ready what its loss needs beside the model, such as a teacher; see that it fits the model.

        Called before the first step of every stage that trains on its rows, also after a restart; and beforehand, for
        a plan and to find out what would stop the stage, with a model in ``ctx`` whose tensors have no values.

        Raises:
            UserError: it cannot be found, or does not fit.
        """

    @abstractmethod
    def texts(self, row: Row) -> Iterator[str]:
        """The plain texts of a row, prompts and answers, without any model's template."""

    @abstractmethod
    def encode(self, row: Row, processor: Any) -> Features:
        """Encode one row.

        Raises:
            UserError: a column is missing or empty, or nothing is left to learn from; the core adds which row.
        """

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        """Encode several rows, each as :meth:`encode` does; faster where the processor takes many texts at once.

        Raises:
            UserError: any of the rows cannot be encoded; the core calls :meth:`encode` to find out which.
        """
        return [self.encode(row, processor) for row in rows]

    def member(self, item: Features) -> str:
        """Which of several tasks in one an encoded row is of; empty where there is one. For ``source-gradients``."""
        return ""

    def packing(self) -> Packing | None:
        """How training cuts and joins encoded rows; None: it takes them as they are."""
        return None

    def augment(
        self, item: Features, draw: Callable[[], Features], processor: Any, rng: np.random.Generator
    ) -> Features:
        """What training alone makes of a row each time it draws it: a mix with another one, a random crop.

        The core calls it before :meth:`vary`, on the same rows and with the same ``rng``, and never where rows are
        measured: scores and Fisher information are of rows as they are.

        Args:
            item: as :meth:`encode` made it, or a window of that; not to be changed in place.
            draw: gives a row of the same source as ``item`` by ``rng``, each as likely as any other.
            processor: as in :meth:`encode`.
            rng: as in :meth:`vary`; the result depends on nothing else.

        Returns:
            What :meth:`vary`, :meth:`join` and :meth:`collate` take beside rows that are not augmented, with as many
            targets.
        """
        return item

    def vary(self, item: Features, processor: Any, rng: np.random.Generator) -> Features:
        """What training makes of a row each time it draws it: masks, corrupted spans, another view.

        The core calls it between the cache and :meth:`join` or :meth:`collate`, on rows as :meth:`packing` cuts them
        and before it joins them. In training ``rng`` depends on the recipe's seed, the stage, the source of the row
        and the position in the stream of rows, and so differs in each epoch and is the same after a restart. Where
        rows are measured (scores, Fisher information) it depends on the content of ``item`` alone.

        Args:
            item: as :meth:`encode` made it, or a window of that; not to be changed in place.
            processor: as in :meth:`encode`.
            rng: all randomness comes from here; the result depends on nothing else.
        """
        return item

    def join(self, pieces: Sequence[Features]) -> Features:
        """Make one item of several rows, which must not see each other. Needed where :meth:`packing` joins."""
        raise TypeError(f"{type(self).__name__} cannot join rows")

    @abstractmethod
    def collate(self, items: Sequence[Features]) -> Batch:
        """Stack encoded rows into a batch, padded on the right."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """The summed loss of a batch. Rows must not influence each other."""

    def prompt(self, row: Row, processor: Any) -> list[int]:
        """The token ids after which the model writes its answer. Needs the capability ``prompts``."""
        raise TypeError(f"{type(self).__name__} has no prompts")

    def answer(self, row: Row) -> str:
        """The answer that the row gives. Needs the capability ``prompts``."""
        raise TypeError(f"{type(self).__name__} has no answers")

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        """What the model predicts of a batch, under ``no_grad``; :func:`ftk.parts.predictions` asks for all test rows.

        Needs ``class-predictions``, ``scalar-predictions`` or ``embedding-predictions``, by the kind that is given.
        """
        raise TypeError(f"{type(self).__name__} does not predict")

    def known(self, tasks: Iterable[Task]) -> tuple[int, ...] | None:
        """Of the outputs of its head those that these tasks have taught, by number; None: all.

        For whoever compares outputs, where classes come with the stages: those that ``ctx.earlier`` have taught are
        what the stage's starting model knows.
        """
        return None

    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with each target replaced by a draw from the model's own prediction at that position.

        Needs the capability ``target-sampling``; for the true Fisher information.
        """
        raise TypeError(f"{type(self).__name__} cannot draw targets")

    def all_targets(self, model: nn.Module, batch: Batch) -> list[tuple[Tensor, Batch]]:
        """The batch with every target that a row can have, and the model's probability of that target, ``(rows,)``.

        Over the list they sum to 1 for each row. Under ``no_grad``. Needs the capability ``target-listing``; for an
        exact expectation over the model's prediction.
        """
        raise TypeError(f"{type(self).__name__} cannot list targets")
