"""The rows of one role, before they are encoded, and the texts in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ftk.data.keys import ROWS_AT_A_TIME, rows_key
from ftk.errors import UserError
from ftk.parts import Effect, Evaluator, Objective, Row

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Step:
    """What one transform did to the rows of a role.

    Attributes:
        place: where the transform stands in the recipe.
        name: the transform's.
        before: the rows that it was given.
        after: the rows that it gave back.
        effects: what it told of the difference; empty where it told nothing.
    """

    place: str
    name: str
    before: int
    after: int
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Share:
    """What a part gives to the rows of a role that are mixed of several.

    Attributes:
        name: the part's.
        found: its rows.
        drawn: how many rows of the mix are its; a row may be drawn more than once.
        distinct: how many of its rows are in the mix.
    """

    name: str
    found: RoleRows
    drawn: int
    distinct: int


@dataclass(frozen=True)
class RoleRows:
    """The rows of one role, with their transforms applied.

    Attributes:
        rows: the rows.
        place: where they stand in the recipe, as in ``stage.currencies.data.train``.
        known_key: their key, where it is known.
        steps: what each transform did, in order; the first was given the rows as they were read.
        shares: of rows mixed of several data sets, what each gave, before the transforms of the mix.
    """

    rows: Dataset
    place: str
    known_key: str = ""
    steps: tuple[Step, ...] = ()
    shares: tuple[Share, ...] = ()

    @cached_property
    def key(self) -> str:
        """What is the same for equal rows."""
        return self.known_key or rows_key(self.rows)


def keep(rows: Dataset, steps: Sequence[Step], folder: Path) -> None:
    """Write rows, and what they went through, into an entry of the cache, for :func:`read_kept`."""
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as file,
        pa.ipc.new_stream(file, rows.features.arrow_schema) as out,
    ):
        for batch in rows.with_format("arrow").iter(ROWS_AT_A_TIME):
            out.write_table(batch.cast(rows.features.arrow_schema))
    (folder / "key").write_text(rows_key(rows), encoding="ascii")
    (folder / "steps.json").write_text(json.dumps([asdict(step) for step in steps]), encoding="utf-8")
    pa.default_memory_pool().release_unused()


def read_kept(folder: Path, place: str) -> RoleRows:
    """Rows that :func:`keep` wrote, mapped into memory."""
    from datasets import Dataset

    rows = Dataset.from_file(str(folder / "rows.arrow"))
    steps = [
        Step(**{**step, "effects": tuple(Effect(**{**e, "examples": tuple(e["examples"])}) for e in step["effects"])})
        for step in json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    ]
    return RoleRows(rows, place, (folder / "key").read_text(encoding="ascii"), tuple(steps))


def texts_of(rows: Iterable[Row], objective: Objective | Evaluator, place: str, first: int = 1) -> Iterator[list[str]]:
    """The plain texts of each row.

    Raises:
        UserError: a row holds no texts; names the place and the row, counted from ``first``.
    """
    for number, row in enumerate(rows, start=first):
        try:
            yield list(objective.texts(row))
        except UserError as error:
            raise UserError(f"{place}, row {number}: {error.message}", error.hint) from error


def text_key(texts: Sequence[str], row: Row) -> int:
    """A number of 64 bits for the texts of a row, or all it holds if it has none; case and space do not matter."""
    plain = "\x1f".join(" ".join(text.split()).casefold() for text in texts) if texts else content_of(row)
    return int.from_bytes(hashlib.blake2b(plain.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def content_of(value: Any) -> str:
    """What a row or a value in it holds, as a text that is the same for the same: numbers, lists, bytes, images."""
    if isinstance(value, Mapping):
        return "".join(f"{key}\x1e{content_of(each)}\x1d" for key, each in sorted(value.items()))
    if isinstance(value, list | tuple):
        return "".join(f"{content_of(each)}\x1c" for each in value)
    held = value.tobytes() if hasattr(value, "tobytes") else value
    return hashlib.sha256(held).hexdigest() if isinstance(held, bytes) else repr(value)
