"""Where the starting model comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ftk.parts.part import Part


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


class ModelSource(Part):
    """Where the starting model comes from."""

    @abstractmethod
    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Load or make the starting model in float32 or the recipe's dtype, on the CPU, with its processor.

        What is drawn at random depends on ``torch.initial_seed()``, the recipe's seed, or on an option alone.

        It is asked once for each head that the recipe's objectives need. A head that the source does not hold is
        drawn anew.

        Args:
            head: the head that an objective needs.
            corpus: gives the plain texts of all training rows of the recipe; for training a tokenizer.

        Raises:
            UserError: the source cannot be found or read, naming the place and the mend.
        """

    def outline(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """What :meth:`load` gives, for planning: its modules with tensors of the same shapes and types, of any values.

        Override it where the model can be made on the device ``meta``, which reads no weights and takes no memory.
        """
        return self.load(head, corpus)

    @abstractmethod
    def load_folder(self, folder: Path, head: Head) -> Loaded:
        """Load a model that a finished stage of the same run saved, with this source's settings, bit for bit."""

    def body(self, model: Any) -> nn.Module:
        """The part of a model that tasks with different heads share; what lies outside of it is the head.

        By default the model's ``base_model``, as transformers has it, or else the model itself. Models that this source
        gives for different heads agree in names and shapes wherever their bodies both have something.
        """
        body: nn.Module = getattr(model, "base_model", model)
        return body
