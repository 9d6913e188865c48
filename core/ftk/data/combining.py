"""Rows that are mixed of several data sets: which they are, and what each gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftk.data.roles import RoleRows, Share
from ftk.data.steps import told
from ftk.errors import UserError
from ftk.parts import DataMix, DatasetSource, Split
from ftk.recipe.building import build
from ftk.recipe.specs import PartSpec

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Combined:
    """A data set made of others.

    Attributes:
        spec: where it stands in the recipe.
        mix: says which rows come when.
        sources: what its parts are read from, by name.
    """

    spec: PartSpec
    mix: DataMix
    sources: Mapping[str, DatasetSource | Combined]

    def splits(self) -> tuple[Split, ...]:
        """The splits that one of the parts divides its rows into."""
        had = {split for source in self.sources.values() for split in source.splits()}
        return tuple(split for split in SPLITS if split in had)

    def having(self, split: Split) -> list[PartSpec]:
        """The parts that have rows for a split; where others divide theirs, an undivided one is for training only.

        Raises:
            UserError: none has.
        """
        divided = self.splits()
        found = []
        for part in self.spec.parts:
            own = self.sources[part.name].splits()
            if split in own or (not own and (split == "train" or not divided)):
                found.append(part)
        if not found:
            reason = f"{self.spec.path}: none of its parts keeps rows back for {split}"
            raise UserError(reason, f"name a data set as data.{split}, or let a part keep some back")
        return found

    def order(self, parts: Mapping[str, RoleRows], split: Split) -> tuple[np.ndarray, tuple[Share, ...]]:
        """The mixed rows as numbers in the parts one after the other, ``(rows,) int64``, and what each part gives.

        Raises:
            UserError: they cannot be mixed so.
        """
        counts = np.array([len(found.rows) for found in parts.values()])
        firsts = np.cumsum(counts) - counts
        if split != "train" and self.splits():
            order, number = np.arange(counts.sum()), np.repeat(np.arange(len(counts)), counts)
        else:
            with told(self.spec):
                drawn = self.mix.order(dict(zip(parts, counts.tolist(), strict=True)))
                number, row = drawn.T
                if not ((number >= 0) & (number < len(counts)) & (row >= 0) & (row < counts[number])).all():
                    raise IndexError("it draws a row that is not there")
            order = firsts[number] + row
        shares = [
            Share(name, found, int((number == part).sum()), len(np.unique(order[number == part])))
            for part, (name, found) in enumerate(parts.items())
        ]
        return order, tuple(shares)

    def rows(self, parts: Mapping[str, RoleRows], order: np.ndarray) -> Dataset:
        """The rows in that order.

        Raises:
            UserError: the parts have other columns, or columns of other types; names the part.
        """
        from datasets import concatenate_datasets

        (first, known), *others = parts.items()
        for name, found in others:
            ours, theirs = set(known.rows.column_names), set(found.rows.column_names)
            if ours != theirs:
                only = [f"`{who}` alone has {', '.join(sorted(has))}" for who, has in
                        ((first, ours - theirs), (name, theirs - ours)) if has]  # fmt: skip
                raise UserError(
                    f"the columns of part `{name}` are not those of `{first}`: {'; '.join(only)}",
                    "bring them to the same with `columns`, or with the transform `map_columns`",
                )
        try:
            joined = concatenate_datasets([found.rows for found in parts.values()])
        except (ValueError, TypeError) as error:
            kinds = "; ".join(
                f"`{column}` is {kind} in `{first}` and {found.rows.features[column]} in `{name}`"
                for name, found in others
                for column, kind in known.rows.features.items()
                if found.rows.features[column] != kind
            )
            raise UserError(
                f"columns of its parts are of different types: {kinds or error}",
                "write the same type in all files, or leave out the column with the transform `map_columns` (drop)",
            ) from error
        return joined.select(order)


def open_source(spec: PartSpec) -> DatasetSource | Combined:
    """What the rows of a data set are read from."""
    if not spec.parts:
        return build(spec, DatasetSource)
    return Combined(spec, build(spec, DataMix), {part.name: open_source(part) for part in spec.parts})
