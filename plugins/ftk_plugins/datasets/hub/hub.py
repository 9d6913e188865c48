"""The data set `hub`: reads rows through the `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ftk import UserError
from ftk.parts import Split
from ftk_plugins.datasets.hub.options import HubOptions
from ftk_plugins.datasets.rows import DividedRows, shaped

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_LOCAL = (
    "check the connection; without one, put a copy of the data set into a folder and name it as `path`, "
    'or read its files with `use = "files"`'
)


class Hub(DividedRows):
    """Rows of one split of a data set on the hub; what is downloaded stays in the cache of `datasets`."""

    def __init__(self, options: HubOptions) -> None:
        super().__init__(options)
        self.options = options

    @property
    def place(self) -> str:
        return f"the data set {self.options.path}"

    def splits(self) -> tuple[Split, ...]:
        """The fractions' splits, or without any, those of the data set on the hub."""
        if self.options.fractions or self.options.split:
            return super().splits()
        return tuple(split for split in _SPLITS if split in self._by_split)

    def rows(self, split: Split) -> Dataset:
        if self.options.fractions or self.options.split:
            return super().rows(split)
        return shaped(self._split(split), self.options, self.place)

    def read(self) -> Dataset:
        return self._load(self.options.split) if self.options.split else self._split("train")

    def _split(self, name: str) -> Dataset:
        if name not in self._by_split:
            there = ", ".join(self._by_split)
            raise UserError(f"{self.place} has no split `{name}`; it has {there}", 'choose one with `split = "..."`')
        return self._by_split[name]

    @cached_property
    def _by_split(self) -> DatasetDict:
        return self._load(None)

    def _load(self, split: str | None) -> Any:
        """Load one split, or all of them by name.

        Raises:
            UserError: the hub cannot be reached, or does not have what the options name.
        """
        path, local = self.options.path, Path(self.options.path).expanduser()
        try:
            with _quiet():
                return datasets.load_dataset(
                    str(local) if local.exists() else path,
                    name=self.options.config,
                    split=split,
                    revision=self.options.revision,
                )
        except DatasetNotFoundError as error:
            raise UserError(
                f"there is no data set {path} on the hub, or it is not open to you: {error}",
                "check the spelling; a private or gated one needs `hf auth login`",
            ) from error
        except (ConnectionError, TimeoutError) as error:
            raise UserError(f"the Hugging Face hub cannot be reached for {path}: {error}", _LOCAL) from error
        except Exception as error:
            raise UserError(
                f"{self.place} cannot be loaded: {type(error).__name__}: {error}",
                "check `path`, `config`, `split` and `revision`",
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would cut through ftk's own."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
