"""The rows of one role, before they are encoded, and the texts in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ftk.data.keys import rows_key
from ftk.errors import UserError
from ftk.parts import Objective, Row

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class RoleRows:
    """The rows of one role, with their transforms applied.

    Attributes:
        rows: the rows.
        place: where they stand in the recipe, as in ``stage.currencies.data.train``.
    """

    rows: Dataset
    place: str

    @cached_property
    def key(self) -> str:
        """What is the same for equal rows."""
        return rows_key(self.rows)


def texts_of(rows: Iterable[Row], objective: Objective, place: str, first: int = 1) -> Iterator[list[str]]:
    """The plain texts of each row.

    Raises:
        UserError: a row holds no texts; names the place and the row, counted from ``first``.
    """
    for number, row in enumerate(rows, start=first):
        try:
            yield list(objective.texts(row))
        except UserError as error:
            raise UserError(f"{place}, row {number}: {error.message}", error.hint) from error


def text_key(texts: Sequence[str]) -> int:
    """A number of 64 bits for some texts; capitals and white space do not matter."""
    plain = "\x1f".join(" ".join(text.split()).casefold() for text in texts)
    return int.from_bytes(hashlib.blake2b(plain.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
