"""Encoding rows once: by pieces, in parallel, into the cache, and from there into every run that needs the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ftk.data.cache import Cache, cache_folder, key_of
from ftk.data.encoded import EncodedRows, Flat, flatten, write_rows
from ftk.data.keys import part_key, processor_key
from ftk.data.pieces import Result, Work, in_pieces
from ftk.data.roles import RoleRows, text_key, texts_of
from ftk.events import Events
from ftk.parts import Features, Objective, Row
from ftk.parts.examples import encode_rows
from ftk.recipe.specs import PartSpec


class Encoder:
    """Encodes rows, or finds them encoded.

    Args:
        events: told how far it is.
        check_interrupt: called between pieces; raises when a signal asked the run to stop.

    Attributes:
        cache: where encoded rows are kept.
    """

    def __init__(self, events: Events, check_interrupt: Callable[[], None]) -> None:
        self._events = events
        self._check_interrupt = check_interrupt
        self._told = 0.0
        self.cache = Cache(cache_folder(), self._wait)
        self._processor_key = lru_cache(maxsize=2)(processor_key)

    def encoded(self, found: RoleRows, spec: PartSpec, objective: Objective, processor: Any) -> Sequence[Features]:
        """The rows of a role under an objective that ``spec`` builds.

        Raises:
            UserError: a row cannot be encoded; names the place and the row, counted from 1.
        """
        who = f"objective `{spec.variant.name}`"

        def work(rows: Sequence[Row], first: int) -> Flat:
            return flatten(encode_rows(rows, objective, processor, found.place, first + 1), who)

        def compute(folder: Path) -> None:
            write_rows(folder, self._pieces(found, work, "encoding rows"), who)

        key = key_of("encoded", found.key, part_key(spec), self._processor_key(processor))
        return EncodedRows(self.cache.entry(key, compute))

    def texts(self, found: RoleRows, spec: PartSpec, objective: Objective) -> np.ndarray:
        """A number for the texts of each row, ``(rows,) uint64``: equal for texts that say the same."""

        def work(rows: Sequence[Row], first: int) -> np.ndarray:
            texts = texts_of(rows, objective, found.place, first + 1)
            keys = (text_key(text, row) for text, row in zip(texts, rows, strict=True))
            return np.fromiter(keys, np.uint64, len(rows))

        def compute(folder: Path) -> None:
            with (folder / "texts").open("wb") as file:
                for piece in self._pieces(found, work, "comparing rows"):
                    piece.tofile(file)

        folder = self.cache.entry(key_of("texts", found.key, part_key(spec)), compute)
        return np.fromfile(folder / "texts", np.uint64)

    def _pieces(self, found: RoleRows, work: Work[Result], text: str) -> Iterator[Result]:
        """The results of each piece; now and then the observers are told."""
        for done, result in in_pieces(found.rows, work, self._check_interrupt):
            if (now := time.monotonic()) - self._told > 0.5 or done == len(found.rows):
                self._events("phase", text=text, done=done, total=len(found.rows))
                self._told = now
            yield result

    def _wait(self) -> None:
        self._check_interrupt()
        if (now := time.monotonic()) - self._told > 10:
            self._events("phase", text="waiting for another process, which makes what this run needs")
            self._told = now
