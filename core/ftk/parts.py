"""The parts of a run: what each kind of plugin builds, in the order in which a run calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from datasets import Dataset

    from ftk.context import Context
    from ftk.drift import Drift
    from ftk.examples import Task
    from ftk.gradients import Gradients

Row = Mapping[str, Any]
"""One row of a data set: column name to value."""

Features = dict[str, np.ndarray]
"""One encoded row: 1-D arrays by name; ``input_ids`` int32 where the model reads tokens."""

State = dict[str, Any]
"""What a part must remember to go on after a restart: tensors and JSON values by name."""

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Head:
    """Which head the objective needs on the model: its kind and, for classification, the labels in order."""

    kind: Literal["causal_lm", "masked_lm", "seq2seq_lm", "sequence_classification", "encoder", "image_classification"]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with the processor (tokenizer, image processor) that feeds it."""

    model: Any
    processor: Any


@dataclass(frozen=True, slots=True)
class Batch:
    """A collated micro-batch.

    Attributes:
        inputs: what the objective's loss reads, first dimension the rows.
        count: how many targets (tokens or rows) its loss sums over.
        tokens: how many input positions are not padding; for throughput.
    """

    inputs: dict[str, Tensor]
    count: int
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on ``device``."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(moved, self.count, self.tokens)


@dataclass(frozen=True, slots=True)
class Loss:
    """A SUM of losses and what it is a sum over; the core divides by the count of the whole optimizer step.

    Attributes:
        total: scalar float32 with its graph, in nats.
        count: the number of targets it sums over, the same as the batch's.
        outputs: what else the model gave, for penalties that need it: ``logits`` and what the objective documents.
    """

    total: Tensor
    count: int
    outputs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number of one task."""

    name: str
    value: float
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that a mitigation mixes into training.

    Attributes:
        name: for reports and the seed of its order; unique among the mitigation's sources.
        items: the encoded rows to draw from, again and again in fresh orders.
        share: the share of the *final* mix, above 0 and below 1.
        objective: what encoded the rows.
    """

    name: str
    items: Sequence[Features]
    share: float
    objective: Objective


class Part(ABC):  # noqa: B024 - each kind of part has abstract methods of its own
    """The base of all parts. Stateless unless it says otherwise."""

    def state_dict(self) -> State:
        """Everything that must survive a restart in the middle of a run: tensors and JSON values."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take back what :meth:`state_dict` gave. Raises ``ValueError`` for a state it does not know."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, yet was handed: {', '.join(sorted(state))}")


class ModelSource(Part):
    """Where the starting model comes from."""

    @abstractmethod
    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Load or make the starting model in float32 or the recipe's dtype, on the CPU, with its processor.

        What is drawn at random depends on ``torch.initial_seed()``, the recipe's seed, or on an option alone.

        Args:
            head: the head that the first stage's objective needs.
            corpus: gives the plain texts of all training rows of the recipe; for training a tokenizer.

        Raises:
            UserError: the source cannot be found or read, naming the place and the mend.
        """

    @abstractmethod
    def load_folder(self, folder: Path, head: Head) -> Loaded:
        """Load a model that a finished stage of the same run saved, with this source's settings, bit for bit."""


class DatasetSource(Part):
    """Where rows come from."""

    def splits(self) -> tuple[Split, ...]:
        """The splits this one source divides its rows into; empty: it has one set of rows for whichever role."""
        return ()

    @abstractmethod
    def rows(self, split: Split) -> Dataset:
        """The rows for ``split``; a source without :meth:`splits` returns all its rows for each.

        Raises:
            UserError: the rows cannot be found or read, naming the file, the line and the mend.
        """


class Transform(Part):
    """Cleaning or augmentation of rows."""

    @abstractmethod
    def apply(self, dataset: Dataset) -> Dataset:
        """Return the changed rows."""


class Adaptation(Part):
    """Which weights are trained, and how the training moves the model.

    ``attach`` on the stage's starting model and then ``load_state_dict`` give the trained model back bit for bit.
    """

    @abstractmethod
    def attach(self, model: Any) -> nn.Module:
        """Make the model trainable in this way and return it; its function has not changed by this."""

    @abstractmethod
    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups: ``params`` and ``lr``, and ``weight_decay`` 0 where none must act."""

    def drift(self) -> Mapping[str, Drift]:
        """The drift of each base weight by its name in the plain model. Needs the capability ``weight-drift``."""
        return {}

    @abstractmethod
    def reference(self) -> AbstractContextManager[None]:
        """Within it, the attached model computes what the stage's starting model computed."""

    def scale(self, alpha: float) -> None:
        """Set the effective weights to ``W₀ + alpha·(W − W₀)``; ``W`` are the weights at the first call.

        Calls are absolute: 0 is exactly the start, 1 exactly the trained model. Needs ``weight-scale``.
        """
        raise TypeError(f"{type(self).__name__} cannot scale its drift")

    @abstractmethod
    def export(self, directory: Path) -> None:
        """Write what is this method's own (an adapter), if anything, under ``directory``. Called before merge."""

    @abstractmethod
    def merge(self) -> Any:
        """End the adaptation: fold it into the model and return the plain model, as ``transformers`` knows it."""


class Objective(Part):
    """How a row becomes a batch, and a batch a loss."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """The head it needs on the model."""

    @abstractmethod
    def texts(self, row: Row) -> Iterator[str]:
        """The plain texts of a row, prompts and answers, without any model's template."""

    @abstractmethod
    def encode(self, row: Row, processor: Any) -> Features:
        """Encode one row.

        Raises:
            UserError: a column is missing or empty, or nothing is left to learn from; the core adds which row.
        """

    def pack(self, items: list[Features]) -> list[Features]:
        """Join encoded rows into fuller ones, if the options ask for it."""
        return items

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

    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with each target replaced by a draw from the model's own prediction at that position.

        Needs the capability ``target-sampling``; for the true Fisher information.
        """
        raise TypeError(f"{type(self).__name__} cannot draw targets")


class Mitigation(Part):
    """A method against forgetting; lives for one stage, its state goes on to the next by the mitigation's name."""

    def remember(self, task: Task, ctx: Context) -> None:
        """Once per body of knowledge, before the first stage that this mitigation guards it in.

        The model is the stage's starting model with the adaptation attached and no drift yet.
        """

    def begin(self, ctx: Context) -> None:
        """Before the first step of the stage, and again when a stage resumes from a checkpoint."""

    def sources(self, ctx: Context) -> Sequence[Source]:
        """Rows to mix into this stage's training. A pure function of options, state and context."""
        return ()

    def penalty(self, batch: Batch, loss: Loss, ctx: Context) -> Tensor | None:
        """An extra loss for this micro-batch: a SUM over the same targets as ``loss.total``; with its graph."""
        return None

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        """Change the step's gradients in place, before clipping; under ``no_grad``.

        Here belongs whatever depends on the weights alone: once per optimizer step and without a graph.
        """

    def after_step(self, ctx: Context) -> None:
        """After the optimizer's step; under ``no_grad``."""

    def finish(self, ctx: Context) -> None:
        """After the last step of the stage, before it is measured and exported."""

    def report(self) -> dict[str, Any]:
        """What the method says of itself in ``report.json``: JSON values, the same after a restart."""
        return {}


class Evaluator(Part):
    """A measurement of one task."""

    @abstractmethod
    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``model`` (in ``eval`` mode, under ``no_grad``) on ``task.test``."""
