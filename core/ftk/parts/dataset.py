"""Where rows come from, and what changes them before they are encoded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ftk.parts.effects import Effect
from ftk.parts.part import Part, Split

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from ftk.parts.starting import StartingModel


class DatasetSource(Part):
    """Where rows come from."""

    def see_model(self, model: StartingModel) -> None:
        """Take the recipe's starting model, before :meth:`identity` and :meth:`rows`.

        Called only where the variant needs ``trained-model``.
        """

    def splits(self) -> tuple[Split, ...]:
        """The splits this one source divides its rows into; empty: it has one set of rows for whichever role."""
        return ()

    def identity(self) -> str | None:
        """What the rows depend on beside the options, as a hash of the files that are read; None: nobody knows.

        Where it is known, and as it was before, the rows come from the core's cache and :meth:`rows` is not called.
        """
        return None

    @abstractmethod
    def rows(self, split: Split) -> Dataset:
        """The rows for ``split``; a source without :meth:`splits` returns all its rows for each.

        Raises:
            UserError: the rows cannot be found or read, naming the file, the line and the mend.
        """

    def effects(self) -> Sequence[Effect]:
        """What the last :meth:`rows` left out and why, as :meth:`Transform.effects` tells it; empty: nothing."""
        return ()


class DataMix(Part):
    """A data set made of others: the core reads them, and it says which of their rows come when.

    Its options give the tables of these others with `Options.data_sets`. It has the splits that one of them has; rows
    that its parts keep back for validation or testing are not mixed: each is measured once.
    """

    @abstractmethod
    def order(self, counts: Mapping[str, int]) -> np.ndarray:
        """The mixed rows, the same each time.

        Args:
            counts: how many rows each part has, by its name.

        Returns:
            ``(rows, 2) int64``: for each row the number of its part, from 0 in the order of ``counts``, and its
            number in that part, from 0.

        Raises:
            UserError: these parts cannot be mixed so, with the mend.
        """


class Transform(Part):
    """Cleaning, choosing or augmentation of rows; :meth:`apply` is called once for each set of rows."""

    def identity(self) -> str:
        """What the result depends on beside the options and the rows, as a hash of the files that are read."""
        return ""

    def training_only(self) -> bool:
        """Whether it shapes what is learned and leaves what is measured as it is, as augmentation does.

        Rows that a training source keeps back for validation or testing then do not go through it.
        """
        return False

    def see_tests(self, place: str, texts: Iterable[str]) -> None:
        """Take the texts of one test set of the recipe, before :meth:`apply`.

        Called only where the variant needs ``test-texts``, once for every test set and probe of every task, the
        retained one too; ``place`` says where it stands in the recipe.
        """

    @abstractmethod
    def apply(self, dataset: Dataset) -> Dataset:
        """Return the changed rows; the same for the same rows, in every process.

        Raises:
            UserError: the rows lack what it works on, naming the column and the mend.
        """

    def effects(self) -> Sequence[Effect]:
        """What the last :meth:`apply` did to which rows, and why; `ftk.parts.Tally` gathers it.

        Where anything is told, all is: the rows before, less those dropped, with those made, are the rows after.
        Where nothing is told, the rows are counted before and after.
        """
        return ()
