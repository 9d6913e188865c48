"""Where the starting model comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftk.parts.part import Part

FILE_SIZE = "5GB"
"""Size of a file of a divided model; so much of it lies in the main process's memory at a time."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which head the objective needs on the model: its kind and, for classification, the labels in order.

    ``problem`` says what the labels are, in the words of Transformers' ``problem_type``
    (``single_label_classification``, ``multi_label_classification``, ``regression``). A model source writes it into the
    configuration, by which whoever is given the exported model knows how to read its outputs. Tasks with equal heads
    share one; ``name`` tells two apart that would otherwise be equal.

    Kinds that ftk's own model sources know: ``causal_lm``, ``masked_lm``, ``seq2seq_lm``, ``sequence_classification``,
    ``token_classification``, ``encoder``, ``image_classification``. Any other is a word that an objective and a model
    source agree on.
    """

    kind: str
    labels: tuple[str, ...] = ()
    problem: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, any ``torch.nn.Module``, with the processor (tokenizer, image processor) that feeds it, or None."""

    model: Any
    processor: Any


class ModelSource(Part):
    """Where the starting model comes from."""

    def identity(self) -> str | None:
        """What the starting model and its processor depend on beside the options, as a hash of the files that are read.

        For what is made with the model once and kept; None: nobody knows, and nothing is kept.

        Raises:
            UserError: the source cannot be found or read.
        """
        return None

    @abstractmethod
    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Load or make the starting model in float32 or the recipe's dtype, on the CPU, with its processor.

        What is drawn at random depends on ``torch.initial_seed()``, the recipe's seed, or on an option alone.

        It is asked once for each head that the recipe's objectives need. A head that the source does not hold is
        drawn anew. A model carries the names of such weights as its attribute ``fresh_weights``, a tuple; one without
        it has none. Of heads beside the first these are put into another order, so that tasks do not begin alike.

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

    def save(self, model: Any, processor: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write a plain model and its processor for :meth:`load_folder`, in safetensors and JSON; no pickles.

        By default with the ``save_pretrained`` of both, as transformers has it. Override it, with
        :meth:`load_folder` and :meth:`how_to_load`, for a module of another make.

        Args:
            model: what :meth:`load` gave, trained.
            processor: what feeds it; None where nothing does.
            folder: where to; it is there, and may hold an adapter.
            state: the weights in the place of the model's own, of which this process then holds some rows only.
        """
        if state is None:
            model.save_pretrained(folder)
        else:
            model.save_pretrained(folder, state_dict=state, max_shard_size=FILE_SIZE)
        if processor is not None:
            processor.save_pretrained(folder)

    @abstractmethod
    def load_folder(self, folder: Path, head: Head) -> Loaded:
        """Load a model that a finished stage of the same run saved, with this source's settings, bit for bit.

        Where ``head`` has more labels than the model was saved with (they come after those), the rows of the head for
        these are as they were saved, and those for the added labels are drawn as :meth:`load` draws a head.

        Raises:
            UserError: the source has no head with so many labels.
        """

    def body(self, model: Any) -> nn.Module:
        """The part of a model that tasks with different heads share; what lies outside of it is the head.

        By default the model's ``base_model``, as transformers has it, or else the model itself. Models that this source
        gives for different heads agree in names and shapes wherever their bodies both have something.
        """
        body: nn.Module = getattr(model, "base_model", model)
        return body

    def how_to_load(self) -> str | None:
        """For the model's card: how anybody loads what :meth:`save` wrote, in Markdown; None: with transformers."""
        return None
