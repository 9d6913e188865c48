"""The transform `clean`: each text through the steps that were asked for, with a count of those that it changed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial

import pyarrow as pa
from datasets import Dataset

from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.clean.markup import resolved, stripped
from ftk_plugins.transforms.clean.options import CleanOptions
from ftk_plugins.transforms.rows import joined, rewritten, text_columns, with_column, with_texts

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_ANY_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f"  # control characters but for the tab and the line end
    "\u00ad\u200b\u2060-\u2064\ufeff\ufff9-\ufffb"  # soft hyphens, spaces without width, marks of the byte order
    "\u202a-\u202e\u2066-\u2069]"  # what overrides the direction; its marks and joiners are part of the spelling
)
_SPACES, _EMPTY_LINES = re.compile(r"[^\S\n]+"), re.compile(r"\n{3,}")


class Clean(Transform):
    """Changes every text; a row of which nothing is left is dropped."""

    def __init__(self, options: CleanOptions) -> None:
        self.options = options
        self._steps = steps(options)
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        self._tally = Tally()
        columns = text_columns(dataset, self.options.columns, "clean")
        return rewritten(dataset, partial(self._cleaned, columns), dataset.features)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _cleaned(self, columns: list[str], table: pa.Table, first: int) -> pa.Table:
        before = list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))
        rows = list(before)
        for reason, step in self._steps:
            after = [tuple(with_texts(value, step) for value in row) for row in rows]
            for old, new in zip(rows, after, strict=True):
                if old != new:
                    self._tally.changed(reason, joined(old))
            rows = after
        keep = [True] * len(rows)
        if self.options.drop_empty:
            keep = [bool(joined(row).strip()) for row in rows]
            for row, kept in zip(before, keep, strict=True):
                if not kept:
                    self._tally.dropped("without any text", joined(row))
        for index, name in enumerate(columns):
            table = with_column(table, name, [row[index] for row in rows], table.schema.field(name).type)
        return table.filter(pa.array(keep, type=pa.bool_()))


def steps(options: CleanOptions) -> list[tuple[str, Callable[[str], str]]]:
    """What each text goes through, with what is told of the rows that it changes."""
    steps: list[tuple[str, Callable[[str], str]]] = []
    if options.html != "keep":
        entities = options.html == "entities"
        steps.append(("with HTML", resolved if entities else stripped))
    if options.control:
        steps.append(("with control characters", _visible))
    if options.unicode != "keep":
        steps.append((f"not in {options.unicode}", partial(unicodedata.normalize, options.unicode)))
    if options.whitespace != "keep":
        trim = options.whitespace == "trim"
        steps.append(("with stray white space", _trimmed if trim else _collapsed))
    return steps


def _visible(text: str) -> str:
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text)) if _ANY_CONTROL.search(text) else text


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _collapsed(text: str) -> str:
    return _EMPTY_LINES.sub("\n\n", _trimmed(_SPACES.sub(" ", text)))
