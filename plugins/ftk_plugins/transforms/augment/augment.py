"""The transform `augment`: changed copies of each row, behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Image

from ftk import UserError
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.augment import images, texts
from ftk_plugins.transforms.augment.options import OF_IMAGES, OF_TEXTS, AugmentOptions
from ftk_plugins.transforms.rows import named_columns, rewritten, with_column

Change = Callable[[Any, int, Random], Any]
"""Takes a value and the number of the copy; None where there is nothing to change."""


class Augment(Transform):
    """Makes ``copies`` of each row; a copy that would be like the row is not made.

    What is changed follows from the seed, the number of the row and that of the copy.
    """

    def __init__(self, options: AugmentOptions) -> None:
        self.options = options
        self._tally = Tally()

    def training_only(self) -> bool:
        return True

    def identity(self) -> str:
        """A hash of the file of synonyms, where there is one."""
        if not isinstance(self.options.synonyms, str):
            return ""
        try:
            return hashlib.sha256(Path(self.options.synonyms).expanduser().read_bytes()).hexdigest()
        except OSError:
            return ""  # what is wrong with it is told when it is read

    def apply(self, dataset: Dataset) -> Dataset:
        """Raises ``UserError`` where a column holds neither texts nor images, or an option has none to act on."""
        self._tally = Tally()
        columns = named_columns(dataset, self.options.columns, "augment")
        kinds = {name: _kind(dataset, name) for name in columns}
        for kind, names in (("texts", OF_TEXTS), ("images", OF_IMAGES)):
            if kind not in kinds.values():
                for option in self.options.changed(names):
                    raise UserError(f"`{option}` acts on {kind}, and `columns` names none", f"leave out `{option}`")
        changes = {name: self._change(dataset, name, kind) for name, kind in kinds.items()}
        return rewritten(dataset, partial(self._with_copies, changes), dataset.features)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _change(self, dataset: Dataset, name: str, kind: str) -> Change:
        """What makes a copy's value of a column's."""
        if kind == "texts":
            operations = texts.operations(self.options)
            if not operations:
                raise UserError("nothing is left to do with texts", "give `deletion`, `swap` or `synonyms`")
            return partial(_text, operations)
        if (self.options.flip, self.options.crop, self.options.jitter) == (0, 1, 0):
            raise UserError("nothing is left to do with images", "give `flip`, `crop` or `jitter`")
        feature = dataset.features[name]
        if isinstance(feature, Image):
            return partial(_picture, feature, self.options)
        return partial(_pixels, name, self.options)

    def _with_copies(self, changes: dict[str, Change], table: pa.Table, first: int) -> pa.Table:
        values = {name: table.column(name).to_pylist() for name in changes}
        rows: list[int] = []
        made: dict[str, list[Any]] = {name: [] for name in changes}
        for row in range(table.num_rows):
            originals = {name: values[name][row] for name in changes}
            kept = [originals]
            for copy in range(self.options.copies):
                draw = Random(f"{self.options.seed} {first + row} {copy}")
                changed = {name: change(originals[name], copy, draw) for name, change in changes.items()}
                if any(value is not None for value in changed.values()):
                    kept.append({name: originals[name] if value is None else value for name, value in changed.items()})
                    shown = next((value for value in changed.values() if isinstance(value, str)), "")
                    self._tally.made("changed copies", shown)
            rows += [row] * len(kept)
            for name, column in made.items():
                column += [one[name] for one in kept]
        table = table.take(rows)
        for name, column in made.items():
            table = with_column(table, name, column, table.schema.field(name).type)
        return table


def _kind(dataset: Dataset, name: str) -> str:
    """What a column holds: texts or images.

    Raises:
        UserError: neither, or images and there is nothing to read them with.
    """
    if isinstance(dataset.features[name], Image):
        if find_spec("PIL") is None:
            raise UserError(
                f"column `{name}` holds images, and Pillow is not installed", "pip install 'finetune-toolkit[images]'"
            )
        return "images"
    kind = dataset.features.arrow_schema.field(name).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "texts"
    kind = getattr(kind, "storage_type", kind)
    for _ in range(2):
        kind = getattr(kind, "value_type", None)
    if kind is None:
        held = dataset.features.arrow_schema.field(name).type
        raise UserError(f"column `{name}` holds {held}, neither texts nor images", "name another with `columns`")
    return "images"


def _text(operations: list[texts.Operation], text: str | None, copy: int, draw: Random) -> str | None:
    """The text after one operation, for each copy the next; where that changes nothing, after another."""
    for turn in range(len(operations) if text else 0):
        after = texts.changed(text or "", operations[(copy + turn) % len(operations)], draw)
        if after is not None:
            return after
    return None


def _picture(feature: Image, options: AugmentOptions, stored: Any, copy: int, draw: Random) -> Any:
    """An encoded image, changed and encoded again as PNG."""
    from PIL import Image as Picture

    if stored is None:
        return None
    picture = feature.decode_example(stored)
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    changed = images.changed(pixels, options, draw)
    if np.array_equal(changed, pixels):
        return None
    return Image().encode_example(Picture.fromarray(changed, picture.mode))


def _pixels(name: str, options: AugmentOptions, stored: Any, copy: int, draw: Random) -> Any:
    """An image as rows of numbers."""
    if stored is None:
        return None
    pixels = images.numbers_in(name, stored)
    changed = images.changed(pixels, options, draw)
    return None if np.array_equal(changed, pixels) else changed.tolist()
