"""The data set `hub`: reads rows through the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from datasets.exceptions import DatasetNotFoundError

from ftk import UserError
from ftk.parts import Split
from ftk_plugins.datasets.hub.options import HubOptions
from ftk_plugins.datasets.quiet import quiet
from ftk_plugins.datasets.rows import DividedRows, shaped

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_COMMIT = re.compile("[0-9a-f]{40}")
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
        return self._whole(self._load(self.options.split)) if self.options.split else self._split("train")

    def identity(self) -> str | None:
        """What a stream depends on, where its revision is a commit; otherwise the `datasets` library knows."""
        named = self.options.revision or ""
        return f"{self.options.path} {named}" if self.options.stream and _COMMIT.fullmatch(named) else None

    def _split(self, name: str) -> Dataset:
        if name not in self._by_split:
            there = ", ".join(self._by_split)
            raise UserError(f"{self.place} has no split `{name}`; it has {there}", 'choose one with `split = "..."`')
        return self._whole(self._by_split[name])

    @cached_property
    def _by_split(self) -> DatasetDict | IterableDatasetDict:
        return self._load(None)

    def _whole(self, found: Dataset | IterableDataset) -> Dataset:
        """The rows; of a stream, the first of them."""
        if isinstance(found, Dataset):
            return found
        with self._told(), quiet():
            return Dataset.from_list(list(found.take(self.options.limit)), features=found.features)

    def _load(self, split: str | None) -> Any:
        """One split, or all of them by name.

        Raises:
            UserError: the hub cannot be reached, or does not have what the options name.
        """
        local = Path(self.options.path).expanduser()
        where: dict[str, Any] = {
            "path": str(local) if local.exists() else self.options.path, "name": self.options.config,
            "revision": self.options.revision,
        }  # fmt: skip
        if self.options.data_files:
            where["data_files"] = self.options.data_files
        with self._told(), quiet():
            if self.options.shards is not None:
                where["data_files"] = self._first_files(where, self.options.shards)
            if self.options.stream:
                where["streaming"] = True
            return datasets.load_dataset(**where, split=split)

    def _first_files(self, where: dict[str, Any], shards: int) -> dict[str, list[str]]:
        """The first files of each split, by its name."""
        files = datasets.load_dataset_builder(**where).config.data_files
        most = max((len(found) for found in (files or {}).values()), default=0)
        if shards >= most:
            raise UserError(
                f"{self.place} has at most {most} files in a split, so that `shards = {shards}` leaves out none",
                "write a smaller number, or leave it out",
            )
        return {str(split): [str(file) for file in found[:shards]] for split, found in files.items()}

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the hub, in words."""
        path = self.options.path
        try:
            yield
        except UserError:
            raise
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
                "check `path`, `config`, `split`, `revision` and `data_files`",
            ) from error
