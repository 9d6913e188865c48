"""From the data sets that a recipe names to the rows of each role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ftk.data.cache import Cache, key_of
from ftk.data.encoding import Encoder
from ftk.data.keys import part_key
from ftk.data.pieces import piece_size, rows_of
from ftk.data.roles import RoleRows, keep, read_kept, texts_of
from ftk.errors import RunFailed, UserError
from ftk.parts import DatasetSource, Evaluator, Examples, Objective, Split, Task, Transform
from ftk.recipe.building import build
from ftk.recipe.specs import DataSpec, PartSpec

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Rows:
    """The rows of one task by role, not yet encoded.

    Attributes:
        task: its name.
        objective: reads them.
        spec: what the objective was built from.
        roles: ``train``, and ``validation`` and ``test`` where there are such rows.
        probes: further test sets by name.
    """

    task: str
    objective: Objective
    spec: PartSpec
    roles: Mapping[str, RoleRows]
    probes: Mapping[str, RoleRows] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """The plain texts of the training rows."""
        train = self.roles["train"]
        size = piece_size(train.rows)
        for start in range(0, len(train.rows), size):
            rows = rows_of(train.rows, start, start + size)
            for texts in texts_of(rows, self.objective, train.place, start + 1):
                yield from texts

    def task_with(self, processor: Any, evaluators: tuple[Evaluator, ...], encoder: Encoder) -> Task:
        """The task, with a processor to encode it."""

        def examples(found: RoleRows) -> Examples:
            encode = partial(encoder.encoded, found, self.spec, self.objective, processor)
            return Examples(found.rows, self.objective, processor, found.place, encode)

        roles = {role: examples(found) for role, found in self.roles.items()}
        probes = {name: examples(found) for name, found in self.probes.items()}
        return Task(self.task, self.objective, probes=probes, evaluators=evaluators, **roles)


class RowReader:
    """Reads the rows of roles; those of a source that knows what they depend on, once for all runs.

    Args:
        cache: where rows are kept.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def stage(self, task: str, objective: Objective, spec: PartSpec, data: DataSpec) -> Rows:
        """A stage's rows; a validation or test set that is not named comes from the train source's own split."""
        roles = self._roles(data.train, data.validation, data.test)
        probes = {name: self.read(spec, "test") for name, spec in data.probes.items()}
        return Rows(task, objective, spec, roles, probes)

    def retained(
        self, objective: Objective, spec: PartSpec, train: PartSpec, validation: PartSpec | None, test: PartSpec | None
    ) -> Rows:
        """The rows of what the starting model knows, the task ``retain``; missing roles as in a stage."""
        return Rows("retain", objective, spec, self._roles(train, validation, test))

    def read(self, spec: PartSpec, split: Split, source: DatasetSource | None = None) -> RoleRows:
        """The rows of one data set with its transforms applied.

        Raises:
            UserError: no rows are left, or the source says what is wrong.
        """
        source = source or build(spec, DatasetSource)
        with _told(spec):
            identity = source.identity()
        if identity is None:
            return RoleRows(_rows(spec, split, source), spec.path)
        transforms = [part_key(transform) for transform in spec.transforms]
        key = key_of("rows", identity, split, part_key(spec), transforms)
        return read_kept(self._cache.entry(key, lambda folder: keep(_rows(spec, split, source), folder)), spec.path)

    def _roles(self, train: PartSpec, validation: PartSpec | None, test: PartSpec | None) -> dict[str, RoleRows]:
        source = build(train, DatasetSource)
        roles = {"train": self.read(train, "train", source)}
        splits: tuple[tuple[Split, PartSpec | None], ...] = (("validation", validation), ("test", test))
        for split, spec in splits:
            if spec is not None:
                roles[split] = self.read(spec, split)
            elif split in source.splits():
                roles[split] = self.read(train, split, source)
        return roles


def _rows(spec: PartSpec, split: Split, source: DatasetSource) -> Dataset:
    with _told(spec):
        rows = source.rows(split)
        for transform in spec.transforms:
            rows = build(transform, Transform).apply(rows)
    if len(rows) == 0:
        raise UserError(f"{spec.path}: there are no rows", "look at the source's options: limits, filters, fractions")
    return rows


@contextmanager
def _told(spec: PartSpec) -> Iterator[None]:
    """Errors of a source say where it stands in the recipe."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{spec.path}: {error.message}", error.hint) from error
    except RunFailed:
        raise
    except Exception as error:
        raise RunFailed(f"{spec.path}: `{spec.use}` failed: {type(error).__name__}: {error}") from error
