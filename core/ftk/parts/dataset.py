"""Where rows come from, and what changes them before they are encoded."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from ftk.parts.part import Part, Split

if TYPE_CHECKING:
    from datasets import Dataset


class DatasetSource(Part):
    """Where rows come from."""

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


class Transform(Part):
    """Cleaning or augmentation of rows."""

    @abstractmethod
    def apply(self, dataset: Dataset) -> Dataset:
        """Return the changed rows."""
